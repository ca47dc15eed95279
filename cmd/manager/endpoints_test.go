package main

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

func TestHubEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		args, texts, names []string
		wantErr            string
	}{
		"none: the hub's Service":         {nil, []string{"fingerpost-hub.dns.svc:8443"}, nil, ""},
		"names and addresses, in order":   {[]string{"Hub.example.net:443", "[2001:db8::1]:8443", "192.0.2.1:8443"}, []string{"hub.example.net:443", "[2001:db8::1]:8443", "192.0.2.1:8443"}, []string{"hub.example.net", "2001:db8::1", "192.0.2.1"}, ""},
		"a host without port is refused":  {[]string{"hub.example.net"}, nil, nil, "is not HOST:PORT"},
		"port 0 is refused":               {[]string{"hub.example.net:0"}, nil, nil, `"0" is no port`},
		"what is no name is refused":      {[]string{"hub_1.example.net:1"}, nil, nil, "must be a DNS name"},
		"a port beyond 65535 is refused":  {[]string{"hub.example.net:65536"}, nil, nil, "is no port"},
		"a port without host is refused":  {[]string{":8443"}, nil, nil, "must be a DNS name"},
		"an address with zone is refused": {[]string{"[fe80::1%eth0]:8443"}, nil, nil, "no zone"},
	} {
		t.Run(name, func(t *testing.T) {
			var e hubEndpoints
			flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
			flags.Var(&e, "hub-endpoint", "")
			var args []string
			for _, a := range c.args {
				args = append(args, "--hub-endpoint", a)
			}
			if err := flags.Parse(args); c.wantErr != "" {
				expectError(t, err, c.wantErr)
				return
			} else if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, n := range e.names() {
				names = append(names, n.String())
			}
			if got := e.texts("dns"); !slices.Equal(got, c.texts) || !slices.Equal(names, c.names) {
				t.Errorf("endpoints %v, names %v", got, names)
			}
		})
	}
}

func TestCachedNamespaces(t *testing.T) {
	if got := cachedNamespaces(nil, "dns"); got != nil {
		t.Errorf("none listed: %v, wanted all", got)
	}
	got := cachedNamespaces([]string{"payments", "dns"}, "dns")
	if _, own := got["dns"]; !own || len(got) != 2 {
		t.Errorf("%v, wanted payments and dns", got)
	}
}
