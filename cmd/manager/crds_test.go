package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost-dns/fingerpost/config/crd"
)

func TestAwaitKinds(t *testing.T) {
	older := errors.New("older")
	for name, c := range map[string]struct {
		after   time.Duration // that they are there
		want    time.Duration // that it takes
		wantErr string
	}{
		"kinds that are there are not waited for": {0, 0, ""},
		"kinds that come in time are waited for":  {3 * time.Second, 3 * time.Second, ""},
		"kinds that do not come are an error":     {time.Hour, kindsPatience, "waited 10s: older"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := awaitKinds(t.Context(), kindsPatience, func(context.Context) error {
					if time.Since(start) < c.after {
						return older
					}
					return nil
				})
				if took := time.Since(start); took != c.want {
					t.Errorf("it took %s, wanted %s", took, c.want)
				}
				if c.wantErr != "" {
					expectError(t, err, c.wantErr)
				} else if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCRDsPrint(t *testing.T) {
	var out bytes.Buffer
	cmd := crdsCommand()
	cmd.SetArgs([]string{"print"})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	definitions, err := crd.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(out.Bytes(), []byte("---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n")); got != len(definitions) {
		t.Errorf("%d documents, wanted %d", got, len(definitions))
	}
}
