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
drain: 7s
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
		"a drain that nobody waits for":  {"drain: 1h", "drain is 1h0m0s, and may be 10m0s"},
		"a name that no engine is told":  {"keepWarm: ['a b']", `has other characters than`},
		"a field that is there twice":    {"drain: 1s\ndrain: 2s", `key "drain" already set`},
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
	for name, tt := range map[string]struct {
		of     engine.Config
		given  []netip.AddrPort
		listen []netip.AddrPort
		source []netip.Addr
	}{
		"questions come from the first address of each family": {engine.Config{}, two, two, []netip.Addr{two[0].Addr(), two[1].Addr()}},
		"a source that is said is kept":                        {engine.Config{Source: []netip.Addr{two[2].Addr()}}, two, two, []netip.Addr{two[2].Addr()}},
		"addresses that are said are kept":                     {engine.Config{Listen: two[1:2]}, two, two[1:2], []netip.Addr{two[1].Addr()}},
		"an address that stands for all is no source":          {engine.Config{}, at("0.0.0.0:53"), at("0.0.0.0:53"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := (&Pool{Config: tt.of}).At(tt.given)
			if !reflect.DeepEqual(c.Listen, tt.listen) || !reflect.DeepEqual(c.Source, tt.source) {
				t.Errorf("got %v from %v", c.Listen, c.Source)
			}
		})
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
