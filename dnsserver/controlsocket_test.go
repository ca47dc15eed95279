package dnsserver

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheControlIsReachedHoweverLongTheStateDirectoryIs(t *testing.T) {
	for rule, folder := range map[string]string{
		"a short one": "state",
		"one whose socket has a path of more than 107 octets": strings.Repeat("l", 60) + "/" + strings.Repeat("o", 60) + "/ng",
	} {
		t.Run(rule, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), folder)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(ControlPath(dir), nil, 0o600); err != nil { // what a process that was killed has left
				t.Fatal(err)
			}
			s, _ := testSteerer(t, keptState{})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			l, err := listenControl(dir)
			if err != nil {
				t.Fatal(err)
			}
			go func() { ended <- s.serveControlOn(ctx, l) }()
			if info, err := os.Stat(ControlPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the socket is %v, %v", info, err)
			}
			c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialControl(ctx, dir) }}}
			reply, err := c.Get("http://server/overrides")
			if err != nil {
				t.Fatal(err)
			}
			if reply.Body.Close(); reply.StatusCode != http.StatusOK {
				t.Errorf("the answer is %s", reply.Status)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
