package pki_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/controllers/pki"
)

const day = 24 * time.Hour

var (
	policy = pki.DefaultPolicy()
	start  = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
)

func authority(t *testing.T, now time.Time) pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(nil, now, policy)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a pki.Authority, want pki.Profile, now time.Time) map[string][]byte {
	t.Helper()
	leaf, err := a.Issue(want, now, policy)
	if err != nil {
		t.Fatal(err)
	}
	return a.LeafData(leaf)
}

func advance(t *testing.T, a pki.Authority, now time.Time) (pki.Authority, []pki.Step, time.Time) {
	t.Helper()
	a, steps, next, err := a.Advance(now, policy)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) == 0 && !next.After(now) {
		t.Fatalf("nothing was due at %s, and yet the next step is due at %s", now, next)
	}
	return a, steps, next
}

func server(datacenter, group string) pki.Profile {
	return pki.ServerProfile(&url.URL{Scheme: "fingerpost", Host: "datacenter", Path: "/" + datacenter + "/group/" + group})
}

func hub(t *testing.T, names ...string) pki.Profile {
	t.Helper()
	var parsed []pki.HubName
	for _, n := range names {
		name, err := pki.ParseHubName(n)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, name)
	}
	return pki.HubProfile(&url.URL{Scheme: "fingerpost", Host: "hub"}, "fingerpost-system", parsed)
}

func TestPolicyBounds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*pki.Policy)
		want   string // part of the error; empty: valid
	}{
		"the default is valid":                             {func(*pki.Policy) {}, ""},
		"leaves of a minute are valid":                     {func(p *pki.Policy) { p.LeafLife = time.Minute }, ""},
		"leaves of seconds are not":                        {func(p *pki.Policy) { p.LeafLife = 59 * time.Second }, "1m0s or more"},
		"renewal at once would never end":                  {func(p *pki.Policy) { p.RenewAt = 0 }, "10% to 90%"},
		"renewal at the end comes too late":                {func(p *pki.Policy) { p.RenewAt = 100 }, "10% to 90%"},
		"a CA must outlive its successor's announcement":   {func(p *pki.Policy) { p.CALife = 4*p.LeafLife - 1 }, "4 times"},
		"a CA of four lives of a leaf is just long enough": {func(p *pki.Policy) { p.CALife = 4 * p.LeafLife }, ""},
		"certificates from the future are useless":         {func(p *pki.Policy) { p.Skew = -1 }, "must not be negative"},
		"the zero value is not valid":                      {func(p *pki.Policy) { *p = pki.Policy{} }, "1m0s or more"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pki.DefaultPolicy()
			c.change(&p)
			expectError(t, p.Validate(), c.want)
		})
	}
}

func TestHubNames(t *testing.T) {
	for text, want := range map[string]string{
		"hub.example.net":     "hub.example.net",
		"Hub.Example.NET":     "hub.example.net",
		"hub":                 "hub",
		"192.0.2.1":           "192.0.2.1",
		"::ffff:192.0.2.1":    "192.0.2.1",
		"2001:DB8::1":         "2001:db8::1",
		"":                    "must be a DNS name or an IP address",
		"hub.example.net:443": "must be a DNS name or an IP address",
		"192.0.2.1:443":       "must be a DNS name or an IP address",
		"[2001:db8::1]":       "must be a DNS name or an IP address",
		"*.example.net":       "must be a DNS name or an IP address",
		"fe80::1%eth0":        "no zone",
	} {
		t.Run(text, func(t *testing.T) {
			name, err := pki.ParseHubName(text)
			if err != nil {
				expectError(t, err, want)
			} else if got := name.String(); got != want {
				t.Errorf("got %q, wanted %q", got, want)
			}
		})
	}
}

func TestWhenALeafIsIssuedAgain(t *testing.T) {
	a := authority(t, start)
	want := hub(t, "hub.example.net", "192.0.2.1")
	good := issue(t, a, want, start)
	with := func(key string, value []byte) map[string][]byte {
		data := maps.Clone(good)
		data[key] = value
		return data
	}
	other := authority(t, start)
	for name, c := range map[string]struct {
		data map[string][]byte
		want pki.Profile
		at   time.Duration // after start
		why  string        // part of the reason; empty: kept
	}{
		"a fresh one is kept":                                 {good, want, 0, ""},
		"it is kept by a clock that is a bit behind":          {good, want, -59 * time.Minute, ""},
		"it is kept until two thirds of its life":             {good, want, 59 * day, ""},
		"it is renewed after two thirds of its life":          {good, want, 60 * day, "due for renewal"},
		"it is renewed when it has expired":                   {good, want, 91 * day, "expired"},
		"it is issued if there was none":                      {nil, want, 0, "there was none"},
		"a certificate without its key is no good":            {with(pki.PrivateKeyKey, nil), want, 0, "private key"},
		"a key without its certificate is no good":            {with(pki.CertificateKey, nil), want, 0, "no certificate"},
		"text that is no certificate is no good":              {with(pki.CertificateKey, []byte("hello")), want, 0, "no certificate"},
		"another's key is no good":                            {with(pki.PrivateKeyKey, issue(t, a, want, start)[pki.PrivateKeyKey]), want, 0, "private key"},
		"one of a stranger's CA is no good":                   {issue(t, other, want, start), want, 0, "unknown authority"},
		"a CA's is no leaf":                                   {other.Data(), want, 0, "other names"},
		"a stale bundle does not matter":                      {with(pki.BundleKey, nil), want, 0, ""},
		"a name more asks for another":                        {good, hub(t, "hub.example.net", "192.0.2.1", "hub2"), 0, "other names"},
		"a name less asks for another":                        {good, hub(t, "hub.example.net"), 0, "other names"},
		"an address more asks for another":                    {good, hub(t, "hub.example.net", "192.0.2.1", "192.0.2.2"), 0, "other names"},
		"names in another order are the same":                 {good, hub(t, "192.0.2.1", "hub.example.net"), 0, ""},
		"names twice are the same":                            {good, hub(t, "192.0.2.1", "hub.example.net", "192.0.2.1", "localhost"), 0, ""},
		"an address in its other form is the same":            {good, hub(t, "::ffff:192.0.2.1", "hub.example.net"), 0, ""},
		"another datacenter's identity is no good":            {issue(t, a, server("dc-a", "root"), start), server("dc-b", "root"), 0, "other names"},
		"another group's identity is no good":                 {issue(t, a, server("dc-a", "root"), start), server("dc-a", "authoritative"), 0, "other names"},
		"the group's own is kept":                             {issue(t, a, server("dc-a", "root"), start), server("dc-a", "root"), 0, ""},
		"a server's without client usage is no good":          {issue(t, a, serverOnly(server("dc-a", "root")), start), server("dc-a", "root"), 0, "usage"},
		"one made while the clock was days ahead is not used": {issue(t, a, want, start.Add(3*day)), want, 0, "not yet valid"},
	} {
		t.Run(name, func(t *testing.T) {
			now := start.Add(c.at)
			leaf, due, why := a.Check(c.data, c.want, now, policy)
			switch {
			case c.why == "" && why != "":
				t.Errorf("issued again, because %s", why)
			case c.why != "" && !strings.Contains(why, c.why):
				t.Errorf("reason %q, wanted one with %q", why, c.why)
			case (why == "") != (leaf != nil):
				t.Errorf("reason %q, leaf %v: wanted one of the two", why, leaf)
			case why == "" && !due.After(now):
				t.Errorf("kept although due at %s", due)
			}
		})
	}
}

func serverOnly(p pki.Profile) pki.Profile {
	p.Usages = p.Usages[:1]
	return p
}

func TestLeafCertificates(t *testing.T) {
	a := authority(t, start)
	leaf, err := a.Issue(hub(t, "hub.example.net"), start, policy)
	if err != nil {
		t.Fatal(err)
	}
	c := leaf.Certificate()
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "fingerpost-hub", "fingerpost-hub.fingerpost-system.svc", "hub.example.net"} {
		if err := c.VerifyHostname(name); err != nil {
			t.Errorf("hub: %v", err)
		}
	}
	if got, want := c.NotBefore, start.Add(-time.Hour); !got.Equal(want) {
		t.Errorf("valid from %s, wanted %s", got, want)
	}
	if got, want := c.NotAfter, start.Add(90*day); !got.Equal(want) {
		t.Errorf("valid to %s, wanted %s", got, want)
	}
	if got := fmt.Sprint(c.URIs); got != "[fingerpost://hub]" {
		t.Errorf("identity %s", got)
	}
	if c.PublicKeyAlgorithm != x509.ECDSA || c.IsCA || c.SerialNumber.BitLen() < 64 {
		t.Errorf("algorithm %s, CA %t, serial number %s", c.PublicKeyAlgorithm, c.IsCA, c.SerialNumber)
	}
	if ca := a.Signing(); !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA %t, path length zero %t, usage %b", ca.IsCA, ca.MaxPathLenZero, ca.KeyUsage)
	}

	group, err := pki.ParseLeaf(issue(t, a, server("dc-a", "root"), start), server("dc-a", "root"), start)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(group.Certificate().URIs); got != "[fingerpost://datacenter/dc-a/group/root]" {
		t.Errorf("identity %s", got)
	}
	if err := group.Certificate().VerifyHostname("localhost"); err == nil {
		t.Error("a server's certificate passes for the hub")
	}
}

func TestALeafDoesNotOutliveItsCA(t *testing.T) {
	a := authority(t, start)
	end := a.Signing().NotAfter
	leaf, err := a.Issue(hub(t), end.Add(-day), policy)
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.Certificate().NotAfter; !got.Equal(end) {
		t.Errorf("valid to %s, its CA to %s", got, end)
	}
	_, due, why := a.Check(a.LeafData(leaf), hub(t), end.Add(-day), policy)
	if why != "" || due.Sub(end.Add(-day)) < 10*time.Hour {
		t.Errorf("due already at %s (%s)", due, why)
	}
}

func TestAuthoritySurvivesItsSecret(t *testing.T) {
	a, _, _ := advance(t, authority(t, start), start.Add(3650*day-200*day)) // one with a successor
	b, err := pki.ParseAuthority(a.Data())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range a.Data() {
		if got := b.Data()[key]; !bytes.Equal(got, want) {
			t.Errorf("%s changed on the way", key)
		}
	}
	if len(b.Data()) != 5 {
		t.Errorf("keys %v", slices.Sorted(maps.Keys(b.Data())))
	}
}

func TestAuthorityRefusesHalves(t *testing.T) {
	a, _, _ := advance(t, authority(t, start), start.Add(3450*day))
	other := authority(t, start)
	leaf := issue(t, a, hub(t), start)
	for name, c := range map[string]struct {
		change map[string][]byte
		want   string // part of the error; empty: accepted
	}{
		"whole":                              {nil, ""},
		"no certificate":                     {map[string][]byte{pki.CertificateKey: nil}, "tls.crt is missing"},
		"no key":                             {map[string][]byte{pki.PrivateKeyKey: nil}, "tls.key is missing"},
		"another's key":                      {map[string][]byte{pki.PrivateKeyKey: other.Data()[pki.PrivateKeyKey]}, "private key"},
		"a key that is cut off":              {map[string][]byte{pki.PrivateKeyKey: a.Data()[pki.PrivateKeyKey][:60]}, "private key"},
		"a leaf in place of the CA":          {map[string][]byte{pki.CertificateKey: leaf[pki.CertificateKey], pki.PrivateKeyKey: leaf[pki.PrivateKeyKey]}, "not the certificate of a CA"},
		"no bundle, as of a CA from outside": {map[string][]byte{pki.BundleKey: nil}, ""},
		"a bundle of others only":            {map[string][]byte{pki.BundleKey: other.Bundle()}, ""},
		"a bundle that is no bundle":         {map[string][]byte{pki.BundleKey: []byte("# empty")}, "ca.crt: no certificate"},
		"a bundle with a key in it":          {map[string][]byte{pki.BundleKey: append(a.Bundle(), a.Data()[pki.PrivateKeyKey]...)}, "not a certificate"},
		"a bundle that is cut off":           {map[string][]byte{pki.BundleKey: a.Bundle()[:len(a.Bundle())-40]}, "2 PEM blocks begin, but only 1"},
		"a bundle with a damaged first one":  {map[string][]byte{pki.BundleKey: bytes.Replace(a.Bundle(), []byte("MII"), []byte("M!!"), 1)}, "2 PEM blocks begin, but only 1"},
		"a bundle with comments":             {map[string][]byte{pki.BundleKey: append([]byte("# ours\n"), a.Bundle()...)}, ""},
		"a successor without key":            {map[string][]byte{pki.NextPrivateKeyKey: nil}, "next.key is missing"},
		"a successor that is cut off":        {map[string][]byte{pki.NextCertificateKey: []byte("-----BEGIN")}, "next.crt and next.key"},
	} {
		t.Run(name, func(t *testing.T) {
			data := a.Data()
			maps.Copy(data, c.change)
			b, err := pki.ParseAuthority(data)
			expectError(t, err, c.want)
			if err != nil {
				if strings.Contains(err.Error(), "PRIVATE KEY-----") {
					t.Errorf("the error quotes a key: %v", err)
				}
				return
			}
			if _, _, why := b.Check(issue(t, a, hub(t), start), hub(t), start, policy); why != "" {
				t.Errorf("it does not trust its own CA: %s", why)
			}
		})
	}
}

// TestSuccessionOfCAs goes through the life of an operator in steps of ten days. Every server that has a valid certificate,
// however long ago it fetched it, trusts the hub and is trusted by it.
func TestSuccessionOfCAs(t *testing.T) {
	type fetched struct {
		data map[string][]byte // of the server's Secret
		end  time.Time         // of its certificate
	}
	for name, c := range map[string]struct {
		away    [2]int // days without a manager, from and to
		cut     bool   // so long that fetching could not help
		history []string
	}{
		"a manager that is always there": {
			history: []string{"3380 announced", "3470 the next CA signs", "3650 took"},
		},
		"a manager that was away at the announcement": {
			away:    [2]int{3350, 3400},
			history: []string{"3400 announced", "3490 the next CA signs", "3650 took"},
		},
		"a manager that was away when the next CA should have signed": {
			away:    [2]int{3450, 3500},
			history: []string{"3380 announced", "3500 the next CA signs", "3650 took"},
		},
		"a manager that was away for the whole overlap": {
			away:    [2]int{3300, 3700},
			cut:     true,
			history: []string{"3700 announced", "3700 the next CA signs", "3700 took"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var history []string
			var servers []fetched
			a := authority(t, start)
			first := a.Signing()
			serverData, hubData := issue(t, a, server("dc-a", "root"), start), issue(t, a, hub(t), start)
			for d := 0; d < 4000; d += 10 {
				now := start.Add(time.Duration(d) * day)
				if d < c.away[0] || d >= c.away[1] {
					var steps []pki.Step
					a, steps, _ = advance(t, a, now)
					for _, s := range steps {
						history = append(history, fmt.Sprintf("%d %s", d, s))
					}
					serverData = renew(t, a, serverData, server("dc-a", "root"), now)
					hubData = renew(t, a, hubData, hub(t), now)
				}
				if c.cut {
					continue
				}
				leaf, err := pki.ParseLeaf(serverData, server("dc-a", "root"), now)
				if err != nil {
					t.Fatalf("day %d: %v", d, err)
				}
				servers = append(servers, fetched{serverData, leaf.Certificate().NotAfter})
				servers = slices.DeleteFunc(servers, func(f fetched) bool { return now.After(f.end) })
				for _, f := range servers {
					if _, err := pki.ParseLeaf(swapBundle(f.data, hubData), server("dc-a", "root"), now); err != nil {
						t.Errorf("day %d: the hub refuses the server: %v", d, err)
					}
					if _, err := pki.ParseLeaf(swapBundle(hubData, f.data), hub(t), now); err != nil {
						t.Errorf("day %d: the server refuses the hub: %v", d, err)
					}
				}
			}
			if !slices.EqualFunc(history, c.history, strings.HasPrefix) {
				t.Errorf("history:\n%s\nwanted:\n%s", strings.Join(history, "\n"), strings.Join(c.history, "\n"))
			}
			if a.Signing().Equal(first) {
				t.Error("the first CA still signs")
			}
		})
	}
}

// renew is what the manager does with a leaf's Secret.
func renew(t *testing.T, a pki.Authority, data map[string][]byte, p pki.Profile, now time.Time) map[string][]byte {
	t.Helper()
	if leaf, _, why := a.Check(data, p, now, policy); why == "" {
		return a.LeafData(leaf)
	}
	return issue(t, a, p, now)
}

// swapBundle is the leaf of one Secret as seen by the owner of another.
func swapBundle(leaf, viewer map[string][]byte) map[string][]byte {
	data := maps.Clone(leaf)
	data[pki.BundleKey] = viewer[pki.BundleKey]
	return data
}

func TestOverlapOfCAs(t *testing.T) {
	a := authority(t, start)
	old := issue(t, a, server("dc-a", "root"), start.Add(3379*day)) // the last day before
	announced, steps, next := advance(t, a, start.Add(3380*day))
	if len(steps) != 1 || steps[0] != pki.StepAnnounce {
		t.Fatalf("steps %v", steps)
	}
	if want := start.Add(3470 * day); !next.Equal(want) {
		t.Errorf("promotion at %s, wanted one life of a leaf later, at %s", next, want)
	}
	if !announced.Signing().Equal(a.Signing()) {
		t.Error("the next CA signs at once")
	}
	promoted, steps, next := advance(t, announced, next)
	if len(steps) != 1 || steps[0] != pki.StepPromote {
		t.Fatalf("steps %v", steps)
	}
	if !next.Equal(a.Signing().NotAfter) {
		t.Errorf("next step at %s, wanted the old CA's end at %s", next, a.Signing().NotAfter)
	}
	if len(promoted.Data()) != 3 {
		t.Errorf("the Secret holds %v: the old key must be gone", slices.Sorted(maps.Keys(promoted.Data())))
	}
	now := start.Add(3471 * day)
	fresh := issue(t, promoted, hub(t), now)
	if _, err := pki.ParseLeaf(swapBundle(fresh, announced.Data()), hub(t), now); err != nil {
		t.Errorf("a server that fetched after the announcement refuses the hub: %v", err)
	}
	if _, err := pki.ParseLeaf(swapBundle(fresh, a.Data()), hub(t), now); err == nil {
		t.Error("a server that never fetched since accepts the hub: the test tests nothing")
	}
	if _, err := pki.ParseLeaf(swapBundle(old, promoted.Data()), server("dc-a", "root"), start.Add(3469*day-time.Second)); err != nil {
		t.Errorf("the hub refuses a leaf of the old CA: %v", err)
	}
}

func TestALostAuthorityIsInheritedFrom(t *testing.T) {
	lost := authority(t, start)
	expired := authority(t, start.Add(-3651*day))
	held := issue(t, lost, hub(t), start)
	a, err := pki.NewAuthority([]*x509.Certificate{lost.Signing(), expired.Signing()}, start.Add(day), policy)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, why := a.Check(held, hub(t), start.Add(day), policy); why != "" {
		t.Errorf("a leaf of the lost CA is issued again: %s", why)
	}
	certs, err := pki.ParseCertificates(a.Bundle())
	if err != nil || len(certs) != 2 || !certs[0].Equal(a.Signing()) || !certs[1].Equal(lost.Signing()) {
		t.Errorf("bundle of %d certificates (%v), wanted the new CA and the lost one", len(certs), err)
	}
}

// expectError fails t unless err has the text want; an empty one means no error.
func expectError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("unexpected error: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, wanted one with %q", err, want)
	}
}
