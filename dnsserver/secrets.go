package dnsserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
)

// cookieSecrets is a file with the secrets of server cookies, for a group that runs without hub: one
// on each line in 32 hexadecimal digits, the first makes cookies and all are accepted. Empty lines
// and those that start with # count for nothing.
type cookieSecrets struct {
	path  string
	again <-chan struct{} // each element reads the file again
	next  chan struct{}   // gets what again has when that is done
	log   logr.Logger
}

func (c *cookieSecrets) read() (secrets [][16]byte, err error) {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil || len(b) != 16 {
			return nil, fmt.Errorf("%s:%d: a secret is 32 hexadecimal digits", c.path, n) // and not repeated here
		}
		secrets = append(secrets, [16]byte(b))
	}
	if len(secrets) == 0 {
		return nil, errors.New(c.path + ": there is no secret")
	}
	return secrets, nil
}

// run has the server use what the file says whenever it is to be read again, until ctx ends. If
// that fails it goes on with what it had.
func (c *cookieSecrets) run(ctx context.Context, server *Server) error {
	settings := server.opts.Settings
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.again:
		}
		secrets, err := c.read()
		if err == nil {
			settings.CookieSecrets = secrets
			err = server.Configure(settings)
		}
		if err != nil {
			c.log.Error(err, "the secrets of cookies stay as they were")
		} else {
			c.log.Info("secrets of cookies read", "secrets", len(secrets))
		}
		select {
		case <-ctx.Done():
			return nil
		case c.next <- struct{}{}:
		}
	}
}
