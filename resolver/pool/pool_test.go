package pool

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

const sample = `
clients: [10.0.0.0/8]
rootHints:
- {name: ns-a, addresses: [10.1.0.1]}
recursionCheck: pay.corp
keepWarm: [app.pay.corp]
notifiers: {local: ["10.1.0.1:8053"], others: ["ns.dc2:8053"]}
`

func TestAPoolIsTheSameAfterItWasWrittenAndReadAgain(t *testing.T) {
	p, err := Decode([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "YAML": yaml.Marshal} {
		text, err := write(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Decode(text); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		if strings.Contains(string(text), "listen") {
			t.Errorf("%s says where clients ask, which is the agent's to know:\n%s", name, text)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"fields that nobody knows":       {"rootHint: []", `unknown field "rootHint"`},
		"a notifier without a port":      {"notifiers: {local: [10.1.0.1]}", `notifiers.local[0] is "10.1.0.1", and has to be HOST:PORT`},
		"a notifier with a service name": {"notifiers: {others: ['a:dns']}", `notifiers.others[0] is "a:dns", and has to be HOST:PORT`},
		"a name that no engine is told":  {"keepWarm: ['a b']", `has other characters than`},
		"a field that is there twice":    {"threads: 1\nthreads: 2", `key "threads" already set`},
		"a file elsewhere":               {"files: {../a: b}", `files has "../a", and names have letters`},
		"a port without a certificate":   {"ports: {dot: 853}", "ports has dot or doh, and there is no tls"},
		"a policy zone that reads others": {
			"block: {rpz: [{name: a, file: /pool-files/b}]}\nfiles: {b: \"; $INCLUDE is none\\r\\n$include /etc/passwd\"}",
			"block.rpz[0] a. has $INCLUDE in line 2: files of others are not read, and records are written out"},
		"a policy zone without end": {
			"block: {rpz: [{name: a, file: /pool-files/b}]}\nfiles: {b: \"$GENERATE 0-2147483647 $.x CNAME .\"}",
			"block.rpz[0] a. has $GENERATE in line 1: files of others are not read, and records are written out"},
		"a source that is no network": {"sourceNetworks: [10.0.0.1/8]", "sourceNetworks[0] is no network"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestAnAgentFillsInItsAddresses(t *testing.T) {
	at := func(texts ...string) (all []netip.AddrPort) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddrPort(text))
		}
		return all
	}
	two := at("10.1.0.53:53", "[fd00::53]:53", "10.1.0.54:53")
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.1.9.7"), netip.MustParseAddr("10.1.9.8"), two[0].Addr()}
	near := []netip.Prefix{netip.MustParsePrefix("10.1.9.0/24")}
	for name, tt := range map[string]struct {
		of     Pool
		given  []netip.AddrPort
		listen []netip.AddrPort
		source []netip.Addr
	}{
		"questions come from the first address of each family": {Pool{}, two, two, []netip.Addr{two[0].Addr(), two[1].Addr()}},
		"a source that is said is kept":                        {Pool{Config: engine.Config{Source: []netip.Addr{two[2].Addr()}}}, two, two, []netip.Addr{two[2].Addr()}},
		"addresses that are said are kept":                     {Pool{Config: engine.Config{Listen: two[1:2]}}, two, two[1:2], []netip.Addr{two[1].Addr()}},
		"an address that stands for all is no source":          {Pool{}, at("0.0.0.0:53"), at("0.0.0.0:53"), nil},
		"a source is the machine's own address in a network":   {Pool{SourceNetworks: near}, two, two, []netip.Addr{own[1]}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tt.of.At(Host{Listen: tt.given, Addresses: own})
			if err != nil || !reflect.DeepEqual(c.Listen, tt.listen) || !reflect.DeepEqual(c.Source, tt.source) {
				t.Errorf("got %v from %v: %v", c.Listen, c.Source, err)
			}
		})
	}
	elsewhere := &Pool{SourceNetworks: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
	if _, err := elsewhere.At(Host{Listen: two, Addresses: own}); err == nil || !strings.Contains(err.Error(), "none of this machine's addresses") {
		t.Errorf("questions come from networks that the machine is not in: %v", err)
	}
}

func TestAnAgentFillsInPortsSizesAndFiles(t *testing.T) {
	p, err := Decode([]byte(`
clients: [10.0.0.0/8]
rootHints: [{name: ns-a, addresses: [10.1.0.1]}]
tls: {certificate: /pool-files/crt-1, key: /run/own.key}
proxyProtocol: {from: [10.1.0.5/32]}
ports: {dot: 853, doh: 443, proxy: 5300}
forward: [{zones: [.], upstreams: [{address: 192.0.2.53:853, tls: {name: dns.example, ca: /pool-files/ca-1}}]}]
block: {rpz: [{name: rpz, file: /pool-files/rpz-1}, {name: far, primaries: ["192.0.2.1:53"]}]}
members: {Unbound: {threads: 4}}
cacheMiB: 128
files: {crt-1: a, ca-1: b, rpz-1: c}
`))
	if err != nil {
		t.Fatal(err)
	}
	h := Host{Engine: engine.Unbound, Listen: []netip.AddrPort{netip.MustParseAddrPort("10.1.0.53:53"), netip.MustParseAddrPort("[fd00::53]:53")}, Files: "/run/x"}
	c, err := p.At(h)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"dot":["10.1.0.53:853","[fd00::53]:853"],"doh":["10.1.0.53:443","[fd00::53]:443"],"certificate":"/run/x/crt-1","key":"/run/own.key"`,
		`"listen":["10.1.0.53:5300","[fd00::53]:5300"]`, `"ca":"/run/x/ca-1"`, `"file":"/run/x/rpz-1"`, `"threads":4`, `"cacheMiB":128`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lacks %s:\n%s", want, text)
		}
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if p.TLS.Certificate.String() != "/pool-files/crt-1" || p.Block.RPZ[0].File.String() != "/pool-files/rpz-1" || p.Forward[0].Upstreams[0].TLS.CA.String() != "/pool-files/ca-1" {
		t.Error("the Pool itself has changed")
	}
	delete(p.Files, "ca-1")
	if _, err := p.At(h); err == nil || err.Error() != "forward[0].upstreams[0].tls.ca is /pool-files/ca-1, and there is no such file" {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestGroupsOfPoolsAreNoGroupsOfServers(t *testing.T) {
	for group, want := range map[string]bool{
		GroupName("dns", "office"): true, "pool": false, "pool.dns": false, "pool.dns.": false, "pool.a.b.c": false, "ns": false,
	} {
		if _, _, ok := ParseGroup(group); ok != want {
			t.Errorf("%s: %t", group, ok)
		}
	}
	if namespace, name, _ := ParseGroup(GroupName("dns", "office")); namespace != "dns" || name != "office" {
		t.Errorf("got %s/%s", namespace, name)
	}
}
