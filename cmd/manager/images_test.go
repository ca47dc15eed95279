package main

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestResolverImages(t *testing.T) {
	const others = "KnotResolver=fingerpost/resolver-knotresolver:v1,Recursor=fingerpost/resolver-recursor:v1,Unbound="
	for name, c := range map[string]struct{ arg, want, wantErr string }{
		"none: those of the version":       {"", others + "fingerpost/resolver-unbound:v1", ""},
		"one of them is another one":       {"Unbound=example.com:5000/unbound@sha256:00=", others + "example.com:5000/unbound@sha256:00=", ""},
		"an engine that is none":           {"BIND=example.com/bind", "", `engine "BIND" is none of`},
		"an engine without image":          {"Unbound=", "", "is not ENGINE=IMAGE"},
		"an image that is for no engine":   {"example.com/unbound", "", "is not ENGINE=IMAGE"},
		"names of engines are as in pools": {"unbound=example.com/unbound", "", `engine "unbound" is none of`},
	} {
		t.Run(name, func(t *testing.T) {
			images := defaultResolverImages("v1")
			flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
			flags.Var(images, "resolver-image", "")
			var args []string
			if c.arg != "" {
				args = []string{"--resolver-image", c.arg}
			}
			if err := flags.Parse(args); c.wantErr != "" {
				expectError(t, err, c.wantErr)
			} else if err != nil || images.String() != c.want {
				t.Errorf("%s, %v", images, err)
			}
		})
	}
}
