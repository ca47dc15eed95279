package engine

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden renders each in.yaml for every product. That the products take the result is tested where they are started, in
// package resolver.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := &Config{}
			if err := yaml.UnmarshalStrict(archive.Files[0].Data, c); err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: archive.Comment, Files: archive.Files[:1:1]}
			for _, p := range products {
				r, err := Render(p, c, mustPath(t, "/run/fingerpost"))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.Files {
					name := fmt.Sprintf("%s/%s (%s)", p, f.Name, f.Change)
					got.Files = append(got.Files, txtar.File{Name: name, Data: []byte(strings.ReplaceAll(f.Content, r.Generation, "GENERATION"))})
				}
				got.Files = append(got.Files, txtar.File{Name: string(p) + " can't", Data: []byte(join(r.Unsupported, "\n") + "\n")})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("-want +got (make golden writes them anew):\n%s", diff)
			}
		})
	}
}

func mustPath(t *testing.T, text string) Path {
	t.Helper()
	p, err := ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestWhatIsNotRendered has configurations that no product gets to see.
func TestWhatIsNotRendered(t *testing.T) {
	const base = "{listen: ['10.1.0.53:53'], clients: [10.0.0.0/8], rootHints: [{name: ns-a, addresses: [10.1.0.1]}]"
	for name, tt := range map[string]struct{ config, want string }{
		"without root hints a server would ask the internet": {
			"{listen: ['10.1.0.53:53'], clients: [10.0.0.0/8]}", "rootHints is empty: the server would ask the root servers of the internet"},
		"a root server has an address": {
			"{listen: ['10.1.0.53:53'], clients: [10.0.0.0/8], rootHints: [{name: ns-a, addresses: []}]}", "rootHints[0] needs a name and addresses"},
		"somebody is answered":            {"{listen: ['10.1.0.53:53'], rootHints: [{name: ns-a, addresses: [10.1.0.1]}]}", "clients is empty: nobody would be answered"},
		"an address is used once":         {base + ", tls: {dot: ['10.1.0.53:53'], certificate: /a, key: /b}}", "tls.dot[0] is 10.1.0.53:53, as is listen[0]"},
		"a network has no host's bits":    {strings.Replace(base, "10.0.0.0/8", "10.0.0.1/8", 1) + "}", "clients[0] is no network: its address has bits beyond its length"},
		"two faults are told together":    {"{listen: [], rootHints: [{name: ns-a, addresses: [10.1.0.1]}]}", "clients is empty: nobody would be answered\nlisten is empty: nobody could ask"},
		"a zone goes one way":             {base + ", forward: [{zones: [corp], upstreams: [{address: '10.3.0.1:53'}]}], internal: [{zone: corp, servers: [10.1.0.2]}]}", "internal[0] is corp., which is forwarded"},
		"TLS does not fall back":          {base + ", forward: [{zones: [a], upstreams: [{address: '10.3.0.1:853', tls: {name: x, ca: /c}}, {address: '10.3.0.2:53'}]}]}", "forward[0].upstreams[1] has TLS where others have none: questions would leave in the clear"},
		"stale answers have an age":       {base + ", serveStale: {maxAge: 0s}}", "serveStale.maxAge has to be up to a week (RFC 8767 §5 advises one to three days)"},
		"one source a family":             {base + ", source: [10.1.0.53, 10.1.0.54]}", "source[1] is no address, or the second of its family"},
		"a policy zone has one origin":    {base + ", block: {rpz: [{name: a, file: /f, primaries: ['10.1.0.9:53']}]}}", "block.rpz[0] needs a name, and either file or primaries"},
		"the least TTL is not the most":   {base + ", ttl: {min: 2h, max: 1h}}", "ttl.min is more than ttl.max"},
		"a NAT address has one limit":     {base + ", limits: {nat: [{networks: [10.7.0.0/16], client: 5}, {networks: [10.7.0.0/16], client: 6}]}}", "limits.nat[1] has 10.7.0.0/16, as limits.nat[0] has"},
		"a listener is of all links":      {strings.Replace(base, "10.1.0.53:53", "[fe80::1%x''y]:53", 1) + "}", `listen[0] is "[fe80::1%x'y]:53": there are no addresses of one link alone`},
		"DoT is of all links":             {base + ", tls: {dot: ['[fe80::1%eth0]:853'], certificate: /a, key: /b}}", `tls.dot[0] is "[fe80::1%eth0]:853": there are no addresses of one link alone`},
		"a load balancer is of all links": {base + ", proxyProtocol: {listen: ['[fe80::1%eth0]:54'], from: [10.0.0.0/8]}}", `proxyProtocol.listen[0] is "[fe80::1%eth0]:54": there are no addresses of one link alone`},
		"an upstream is of all links":     {base + ", forward: [{zones: [a], upstreams: [{address: '[fe80::1%eth0]:53'}]}]}", "forward[0].upstreams[0] has no address with a port"},
		"a primary is of all links":       {base + ", block: {rpz: [{name: a, primaries: ['[fe80::1%eth0]:53']}]}}", "block.rpz[0].primaries[0] is no address with a port"},
		"a server is not blocked":         {base + ", block: {names: [invalid]}}", "block.names[0] is invalid., which has ready.resolver-agent.invalid.: servers answer that name when they work, and would never be ready"},
		"not all is blocked":              {base + ", block: {names: [.]}}", "block.names[0] is ., which has ready.resolver-agent.invalid.: servers answer that name when they work, and would never be ready"},
		"a blocked name is no trigger":    {base + ", block: {names: [8.0.0.0.10.rpz-client-ip]}}", "block.names[0] is 8.0.0.0.10.rpz-client-ip.: in a response policy zone that is no name"},
		"a server answers for itself":     {base + ", internal: [{zone: resolver-agent.invalid, servers: [10.1.0.2]}]}", "internal[0] is resolver-agent.invalid., which servers answer by themselves"},
		"nobody is asked about a server":  {base + ", forward: [{zones: [ready.resolver-agent.invalid], upstreams: [{address: '10.3.0.1:53'}]}]}", "forward[0] forwards ready.resolver-agent.invalid., which servers answer by themselves"},
		"a NAT limit is for somebody":     {base + ", limits: {nat: [{networks: [], client: 5}]}}", "limits.nat[0] has no networks"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Config{}
			if err := yaml.UnmarshalStrict([]byte(tt.config), c); err != nil {
				t.Fatal(err)
			}
			for _, p := range products {
				if _, err := Render(p, c, mustPath(t, "/run/fingerpost")); err == nil || err.Error() != tt.want {
					t.Errorf("%s: got %v, want %s", p, err, tt.want)
				}
			}
		})
	}
}

// TestWhatIsNotRead has texts that would end a line or a string in some product's file.
func TestWhatIsNotRead(t *testing.T) {
	for name, config := range map[string]string{
		"a quote in a name":         `block: {names: ["a'); os.execute('x"]}`,
		"a line's end in a name":    `block: {names: ["a\nserver:"]}`,
		"a space in a name":         `block: {names: ["a b"]}`,
		"an escape in a name":       `block: {names: ["a\\039b"]}`,
		"a quote in a path":         `dnstap: {socket: "/a\"b"}`,
		"a line's end in a path":    `dnstap: {socket: "/a\nb"}`,
		"a relative path":           `dnstap: {socket: "a"}`,
		"an anchor of another type": `trustAnchors: [". IN TXT \"');\""]`,
		"a field that is not known": `rootHint: []`,
		"a pattern with an |":       `block: {patterns: ["ads|tracker"]}`,
		"a pattern with a group":    `block: {patterns: ["(ad)+"]}`,
		"a pattern of all names":    `block: {patterns: ["a*"]}`,
		"a pattern of no names":     `block: {patterns: ["\\s"]}`,
		"a pattern that takes long": `block: {patterns: ["a.*b.*c.*d"]}`,
		"a pattern with options":    `block: {patterns: ["a?a?a?a?a?a?a?a?a?a*a*b"]}`,
		"a pattern in upper case":   `block: {patterns: ["ADS"]}`,
		"a pattern with a space":    `block: {patterns: ["\\x20"]}`,
		"a pattern of either case":  `block: {patterns: ["(?i)ads"]}`,
		"a duration below zero":     `ttl: {min: -1s}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := yaml.UnmarshalStrict([]byte(config), &Config{}); err == nil {
				t.Error("it was read")
			}
		})
	}
}

// TestOthers: an address is in the given networks, or in others, and never in both.
func TestOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := func(label string) netip.Addr {
			if rapid.Bool().Draw(t, label+" is IPv4") {
				return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label)))
			}
			return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label)))
		}
		var given []netip.Prefix
		for i := range rapid.IntRange(0, 5).Draw(t, "networks") {
			a := address(fmt.Sprint("network ", i))
			given = append(given, netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked())
		}
		rest := others(given)
		in := func(networks []netip.Prefix, a netip.Addr) (n int) {
			for _, p := range networks {
				if p.Contains(a) {
					n++
				}
			}
			return n
		}
		addresses := []netip.Addr{address("address")}
		for _, p := range given {
			// Where networks begin, and the address before.
			addresses = append(addresses, p.Addr())
			if before := p.Addr().Prev(); before.IsValid() {
				addresses = append(addresses, before)
			}
		}
		for _, a := range addresses {
			if a.Is4In6() {
				continue // in no prefix of IPv6
			}
			if (in(given, a) > 0) == (in(rest, a) > 0) || in(rest, a) > 1 {
				t.Errorf("%s is in %d of %v and %d of %v", a, in(given, a), given, in(rest, a), rest)
			}
		}
	})
}
