package dnsserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// desk is a responder at a time that the test says.
type desk struct {
	*responder
	server *Server
	logged []string
	t      testing.TB
	at     time.Time
}

const limitedZone = `$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 10.0.0.1
www A 10.0.0.2
* A 10.0.0.3
`

func newDesk(t testing.TB, settings Settings, over zone.Transport) *desk {
	t.Helper()
	view := &zone.View{}
	view.Update([]*zone.Served{loadZone(t, "example.test", limitedZone)}, nil)
	d := &desk{t: t, at: time.Now()}
	d.server = &Server{opts: Options{Identity: "dc-a/auth-1", View: view}}
	d.server.answering = answering{view: view, started: d.at}
	d.server.answering.overLimit.log = funcr.New(func(_, args string) { d.logged = append(d.logged, args) }, funcr.Options{})
	if err := settings.check(); err != nil {
		t.Fatal(err)
	}
	d.server.apply(&settings)
	d.responder = newResponder(&d.server.answering, over, &counters{})
	return d
}

// ask returns the reply to a query after some time, nil for silence.
func (d *desk) ask(after time.Duration, from string, m *dns.Msg) *dns.Msg {
	d.t.Helper()
	message, err := m.Pack()
	if err != nil {
		d.t.Fatal(err)
	}
	d.at = d.at.Add(after)
	d.begin(d.at)
	reply := d.answerOne(make([]byte, 0, zone.MaxMessage), message, netip.MustParseAddr(from))
	d.count()
	if reply == nil {
		return nil
	}
	var got dns.Msg
	if err := got.Unpack(reply); err != nil {
		d.t.Fatal(err)
	}
	return &got
}

// asked returns in words what became of n queries, each a microsecond after the one before.
func (d *desk) asked(n int, from string, m *dns.Msg) string {
	d.t.Helper()
	got := map[string]int{}
	for range n {
		switch reply := d.ask(time.Microsecond, from, m); {
		case reply == nil:
			got["dropped"]++
		case reply.Truncated:
			got["truncated"]++
		case extendedRcode(reply) == dns.RcodeBadCookie:
			got["badcookie"]++
		default:
			got["answered"]++
		}
	}
	var words []string
	for _, what := range []string{"answered", "truncated", "badcookie", "dropped"} {
		if got[what] > 0 {
			words = append(words, fmt.Sprint(got[what], " ", what))
		}
	}
	return strings.Join(words, ", ")
}

func extendedRcode(m *dns.Msg) int {
	if o := m.IsEdns0(); o != nil {
		return o.ExtendedRcode()&^0xf | m.Rcode
	}
	return m.Rcode
}

func withCookie(m *dns.Msg, cookie string) *dns.Msg {
	m = m.Copy()
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}}
	return m
}

func cookieOf(t testing.TB, m *dns.Msg) string {
	t.Helper()
	for _, o := range m.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			return c.Cookie
		}
	}
	t.Fatalf("no cookie in %v", m)
	return ""
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestLimits(t *testing.T) {
	const client, neighbour, six = "192.0.2.1", "192.0.2.2", "2001:db8::1"
	const clientCookieText = "0011223344556677"
	www := query("www.example.test.")
	type round struct {
		n    int
		from string
		m    *dns.Msg
		want string
	}
	for sentence, tc := range map[string]struct {
		settings Settings
		over     zone.Transport
		rounds   []round // each query a microsecond after the one before
		counted  map[int]uint64
	}{
		"there are no limits by default": {Settings{}, zone.UDP, []round{{1000, client, www, "1000 answered"}}, nil},
		"equal replies to one address": {
			Settings{Limits: Limits{Responses: 10}}, zone.UDP,
			[]round{
				{100, client, www, "10 answered, 90 dropped"},
				{10, neighbour, www, "10 answered"},
				{10, client, query("ns.example.test."), "10 answered"},
			},
			map[int]uint64{limited + responseLimit*outcomes + dropped: 90, int(zone.RcodeSuccess): 30},
		},
		"equal replies to one IPv6 network": {
			Settings{Limits: Limits{Responses: 10, IPv6Prefix: 64}}, zone.UDP,
			[]round{{100, six, www, "10 answered, 90 dropped"}, {10, "2001:db8::2", www, "10 dropped"}, {10, "2001:db8:0:1::2", www, "10 answered"}}, nil,
		},
		"random names of a wildcard are equal": {
			Settings{Limits: Limits{Responses: 10}}, zone.UDP,
			[]round{{8, client, query("a.example.test."), "8 answered"}, {8, client, query("b.example.test."), "2 answered, 6 dropped"}}, nil,
		},
		"every second slips": {
			Settings{Limits: Limits{Responses: 10, Slip: 2}}, zone.UDP,
			[]round{{100, client, www, "10 answered, 45 truncated, 45 dropped"}},
			map[int]uint64{limited + responseLimit*outcomes + dropped: 45, limited + responseLimit*outcomes + slipped: 45, int(zone.RcodeSuccess): 55},
		},
		"without TCP nothing slips": {
			Settings{Limits: Limits{Responses: 10, Slip: 1}, Transports: Transports{NoTCP: true}}, zone.UDP,
			[]round{{100, client, www, "10 answered, 90 dropped"}}, nil,
		},
		"what is only logged is answered": {
			Settings{Limits: Limits{Responses: 10, Queries: 50, Slip: 1, LogOnly: true}}, zone.UDP,
			[]round{{100, client, www, "100 answered"}},
			map[int]uint64{limited + responseLimit*outcomes + onlyLogged: 40, limited + queryLimit*outcomes + onlyLogged: 50, int(zone.RcodeSuccess): 100},
		},
		"over TCP there are no limits": {Settings{Limits: Limits{Responses: 10, Queries: 10}}, zone.TCP, []round{{1000, client, www, "1000 answered"}}, nil},
		"who is exempt has no limits": {
			Settings{Limits: Limits{Responses: 10, Queries: 10, Exempt: prefixes("192.0.2.0/31", "2001:db8::/64")}}, zone.UDP,
			[]round{{100, client, www, "100 answered"}, {100, six, www, "100 answered"}, {100, neighbour, www, "10 answered, 90 dropped"}}, nil,
		},
		"resolvers have no limits": {
			Settings{Limits: Limits{Responses: 10, Queries: 10}, Resolvers: prefixes("192.0.2.1/32")}, zone.UDP,
			[]round{{100, client, www, "100 answered"}, {100, neighbour, www, "10 answered, 90 dropped"}}, nil,
		},
		"queries of one address": {
			Settings{Limits: Limits{Queries: 20, Slip: 10}}, zone.UDP,
			[]round{{100, client, www, "20 answered, 8 truncated, 72 dropped"}, {100, neighbour, query("b.example.test."), "20 answered, 8 truncated, 72 dropped"}},
			map[int]uint64{limited + queryLimit*outcomes + dropped: 144, limited + queryLimit*outcomes + slipped: 16},
		},
		"who has a client cookie is asked to use a server cookie": {
			Settings{Limits: Limits{Responses: 10, Slip: 1}}, zone.UDP,
			[]round{{15, client, withCookie(www, clientCookieText), "10 answered, 5 badcookie"}},
			map[int]uint64{limited + responseLimit*outcomes + cookieRefused: 5, int(zone.RcodeBadCookie): 5, clientCookie: 15},
		},
		"but not for ever, as it may be forged": {
			Settings{Limits: Limits{Responses: 10, Slip: 2}}, zone.UDP,
			[]round{{100, client, withCookie(www, clientCookieText), "10 answered, 40 truncated, 10 badcookie, 40 dropped"}}, nil,
		},
		"a forged server cookie is worth as little": {
			Settings{Limits: Limits{Responses: 10}}, zone.UDP,
			[]round{{15, client, withCookie(www, clientCookieText+"010000005cf79f111f8130c3eee29480"), "10 answered, 5 badcookie"}},
			map[int]uint64{badCookie: 15},
		},
		"errors are limited whatever the question": {
			Settings{Limits: Limits{Responses: 5}}, zone.UDP,
			[]round{{5, client, query("a.elsewhere."), "5 answered"}, {5, client, query("b.elsewhere."), "5 dropped"}}, nil,
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			d := newDesk(t, tc.settings, tc.over)
			for _, r := range tc.rounds {
				if got := d.asked(r.n, r.from, r.m); got != r.want {
					t.Errorf("of %d from %s: %s; wanted %s", r.n, r.from, got, r.want)
				}
			}
			for kind, want := range tc.counted {
				if got := d.counts.messages[kind].Load(); got != want {
					t.Errorf("counter %d is %d, wanted %d", kind, got, want)
				}
			}
		})
	}
}

// TestAGoodCookieIsExempt is what a client does whose address is forged by others.
func TestAGoodCookieIsExempt(t *testing.T) {
	d := newDesk(t, Settings{Limits: Limits{Responses: 10, Slip: 2}}, zone.UDP)
	www := query("www.example.test.")
	const client, clientCookieText = "192.0.2.1", "0011223344556677"
	if got := d.asked(1000, client, www); !strings.HasPrefix(got, "10 answered") {
		t.Fatalf("the flood gets %s", got)
	}
	first := d.ask(0, client, withCookie(www, clientCookieText))
	if extendedRcode(first) != dns.RcodeBadCookie || len(first.Answer) > 0 {
		t.Fatalf("a client cookie gets %v", first)
	}
	cookie := cookieOf(t, first)
	if got := d.asked(1000, client, withCookie(www, cookie)); got != "1000 answered" {
		t.Errorf("with the cookie %s", got)
	}
	if n := d.counts.messages[goodCookie].Load(); n != 1000 {
		t.Errorf("%d good cookies are counted", n)
	}
	if got := d.asked(10, "192.0.2.2", withCookie(www, cookie)); got != "10 answered" {
		t.Fatal(got)
	}
	if n := d.counts.messages[badCookie].Load(); n != 10 {
		t.Errorf("another address may use the cookie: %d bad ones", n)
	}
	// A good cookie exempts from no limit on queries.
	d = newDesk(t, Settings{Limits: Limits{Queries: 10}}, zone.UDP)
	cookie = cookieOf(t, d.ask(0, client, withCookie(www, clientCookieText)))
	if got := d.asked(20, client, withCookie(www, cookie)); got != "9 answered, 11 dropped" {
		t.Errorf("of too many queries %s", got)
	}
}

func TestLimitsAreLoggedOnceAMinute(t *testing.T) {
	d := newDesk(t, Settings{Limits: Limits{Responses: 10}}, zone.UDP)
	www := query("www.example.test.")
	d.asked(10000, "192.0.2.1", www)
	d.asked(10000, "192.0.2.2", www)
	if len(d.logged) != 1 || !strings.Contains(d.logged[0], "192.0.2.1") || !strings.Contains(d.logged[0], "www.example.test. A") {
		t.Errorf("logged %q", d.logged)
	}
	d.ask(time.Minute, "192.0.2.3", www)
	d.asked(20, "192.0.2.3", www)
	if len(d.logged) != 2 {
		t.Errorf("a minute later: logged %q", d.logged)
	}
}

// TestFourResolversOfOneNetwork has all limits on for all others, and the queries of a company: four
// resolvers of one /24 ask at 80% of what a worker answers, in virtual time.
func TestFourResolversOfOneNetwork(t *testing.T) {
	d := newDesk(t, Settings{
		Limits:    Limits{Responses: 5, Queries: 20, IPv4Prefix: 24, Slip: 2},
		Resolvers: prefixes("10.1.1.0/24"),
	}, zone.UDP)
	const capacity = 250_000
	const seconds, load = 2, capacity * 8 / 10
	www, err := query("www.example.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, zone.MaxUDP)
	const batch = 40
	for i := range seconds * load / batch {
		d.begin(d.at.Add(time.Duration(i) * batch * time.Second / load))
		for j := range batch {
			if d.answerOne(dst, www, netip.AddrFrom4([4]byte{10, 1, 1, byte(j % 4)})) == nil {
				t.Fatalf("query %d is dropped", i*batch+j)
			}
		}
		d.count()
	}
	if n := d.counts.messages[zone.RcodeSuccess].Load(); n != seconds*load {
		t.Errorf("%d of %d are answered", n, seconds*load)
	}
	for kind := quarantined; kind < counted; kind++ {
		if n := d.counts.messages[kind].Load(); n > 0 {
			t.Errorf("counter %d is %d", kind, n)
		}
	}
	// Under overload the heaviest pair of resolver and name yields, nobody else.
	other, err := query("ns.example.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 { // ms
		d.begin(d.at.Add(time.Minute + time.Duration(i)*time.Millisecond))
		d.overloaded()
		for range 300 {
			d.answerOne(dst, www, netip.AddrFrom4([4]byte{10, 1, 1, 1}))
		}
		for j := range 20 {
			if d.answerOne(dst, other, netip.AddrFrom4([4]byte{10, 1, 1, byte(j % 4)})) == nil {
				t.Fatalf("in millisecond %d another query is dropped", i)
			}
		}
		d.count()
	}
	if n := d.counts.messages[shed].Load(); n < 1000*300 {
		t.Errorf("of a storm %d are dropped", n)
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	s := serve(t, Options{Settings: Settings{NSID: true}, Identity: "me"})
	before := s.answering.settings.Load()
	for sentence, tc := range map[string]struct {
		settings Settings
		want     string
	}{
		"replies that are too short":      {Settings{MaxUDP: 511}, "512 to 4096 octets, not 511"},
		"replies that are too long":       {Settings{MaxUDP: 4097}, "512 to 4096 octets, not 4097"},
		"a negative rate of replies":      {Settings{Limits: Limits{Responses: -1}}, "up to 100000 a second, not -1"},
		"a rate of replies without end":   {Settings{Limits: Limits{Responses: 1 << 20}}, "up to 100000 a second, not 1048576"},
		"a negative rate of queries":      {Settings{Limits: Limits{Queries: -1}}, "up to 100000 a second, not -1"},
		"every eleventh slips":            {Settings{Limits: Limits{Slip: 11}}, "not each 11th"},
		"an IPv4 prefix that is too long": {Settings{Limits: Limits{IPv4Prefix: 33}}, "1 to 32 bits, not 33"},
		"an IPv6 prefix that is too long": {Settings{Limits: Limits{IPv6Prefix: 129}}, "1 to 128 bits, not 129"},
		"a resolver that is no network":   {Settings{Resolvers: []netip.Prefix{{}}}, "resolver"},
		"a client that is no network":     {Settings{Limits: Limits{Exempt: []netip.Prefix{{}}}}, "exempt client"},
	} {
		if err := s.Configure(tc.settings); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", sentence, err)
		}
		if s.answering.settings.Load() != before {
			t.Errorf("%s: something changed", sentence)
		}
		if _, err := Listen(Options{Addresses: []netip.AddrPort{loopback()}, Settings: tc.settings, View: &zone.View{}, Log: logr.Discard()}); err == nil {
			t.Errorf("%s: a server starts with it", sentence)
		}
	}
}

func TestSettingsChangeWhileQueriesCome(t *testing.T) {
	eachUDPPath(t, testSettingsChangeWhileQueriesCome)
}

func testSettingsChangeWhileQueriesCome(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	s := serve(t, Options{Workers: 1, Identity: "auth-1", udp: udp})
	address := s.Addresses()[0]
	// As many octets as an answer has.
	size := func(c *udpClient) (octets int, nsid string) {
		m := query("big.example.test.")
		m.Question[0].Name = "large.example.test."
		m.IsEdns0().SetUDPSize(4096)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c.send(b)
		got := c.replies()
		var reply dns.Msg
		if len(got) != 1 || reply.Unpack(got[0]) != nil {
			t.Fatalf("%d replies", len(got))
		}
		for _, o := range reply.IsEdns0().Option {
			nsid = o.(*dns.EDNS0_NSID).Nsid
		}
		if reply.Truncated {
			return 0, nsid
		}
		return len(got[0]), nsid
	}
	var text strings.Builder
	text.WriteString(limitedZone)
	for i := range 240 {
		fmt.Fprintf(&text, "large A 10.2.0.%d\n", i)
	}
	s.opts.View.Update([]*zone.Served{loadZone(t, "example.test", text.String())}, nil)
	c := newUDPClient(t, address)

	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			client := dns.Client{Timeout: 20 * time.Second}
			for ctx.Err() == nil {
				if m, _, err := client.Exchange(query("www.example.test."), address.String()); err != nil || len(m.Answer) != 1 {
					t.Errorf("while settings change: %v %v", m, err)
					return
				}
			}
		})
	}
	for i := range 30 {
		large := i%2 == 0
		want := Settings{NSID: large, Limits: Limits{Responses: 1000 * (i % 3)}}
		if large {
			want.MaxUDP = 4096
		}
		if err := s.Configure(want); err != nil {
			t.Fatal(err)
		}
		octets, nsid := size(c)
		if large != (octets > 3840) || large != (nsid == "617574682d31") {
			t.Fatalf("after change %d: %d octets, NSID %q", i, octets, nsid)
		}
	}
	stop()
	asking.Wait()
}

// TestCookiesOfAGroup has two servers accept each other's cookies, and a secret changed.
func TestCookiesOfAGroup(t *testing.T) {
	group := Settings{CookieSecrets: [][16]byte{{1}}}
	one, other := newDesk(t, group, zone.UDP), newDesk(t, group, zone.UDP)
	other.at = one.at
	const client = "2001:db8::1"
	www := query("www.example.test.")
	cookie := cookieOf(t, one.ask(0, client, withCookie(www, "0011223344556677")))
	if got := cookieOf(t, other.ask(time.Second, client, withCookie(www, cookie))); got != cookie {
		t.Errorf("the other server makes another cookie: %s after %s", got, cookie)
	}
	// The next secret comes behind the present one, changes places with it and is alone at last.
	for _, secrets := range [][][16]byte{{{1}, {2}}, {{2}, {1}}, {{2}}} {
		one.server.apply(&Settings{CookieSecrets: secrets})
		next := cookieOf(t, one.ask(time.Second, client, withCookie(www, cookie)))
		if n := one.counts.messages[badCookie].Load(); n > 0 {
			t.Fatalf("a cookie is bad with %d secrets", len(secrets))
		}
		cookie = next
	}
	// Servers without secrets make their own.
	alone := newDesk(t, Settings{}, zone.UDP)
	alone.server.ownSecret = [16]byte{3}
	alone.server.apply(&Settings{})
	alone.at = one.at
	alone.ask(0, client, withCookie(www, cookie))
	if n := alone.counts.messages[badCookie].Load(); n != 1 {
		t.Errorf("a server without secrets accepts the cookies of others")
	}
}

// BenchmarkAnswer is what one query costs a worker beside the kernel's part.
func BenchmarkAnswer(b *testing.B) {
	all := Settings{
		NSID: true, CookieSecrets: [][16]byte{{1}, {2}}, Resolvers: prefixes("10.0.0.0/24", "10.1.0.0/24", "2001:db8::/64"),
		Limits: Limits{Responses: 100000, Queries: 100000, Slip: 2, Exempt: prefixes("10.2.0.0/24")},
	}
	for _, tc := range []struct {
		name     string
		settings Settings
		from     string
		cookie   bool
		every    uint32 // queries that are watched; 0: none
	}{
		{"plain", Settings{}, "192.0.2.1", false, 0},
		{"cookie", Settings{}, "192.0.2.1", true, 0},
		{"limits", Settings{Limits: Limits{Responses: 100000, Slip: 2}}, "192.0.2.1", false, 0},
		{"all/resolver", all, "10.0.0.1", false, 0},
		{"all/resolver-with-cookie", all, "10.0.0.1", true, 0},
		{"all/anybody", all, "192.0.2.1", false, 0},
		{"all/anybody-with-cookie", all, "192.0.2.1", true, 0},
		{"all/anybody-with-cookie-ipv6", all, "2001:db8:1::1", true, 0},
		{"all/anybody-watched", all, "192.0.2.1", false, 100},
	} {
		b.Run(tc.name, func(b *testing.B) {
			d := newDesk(b, tc.settings, zone.UDP)
			if tc.every > 0 {
				d.watched = newWatched([]tap{{tc.every, newTopNames(tc.every)}})
			}
			m := query("www.example.test.")
			if tc.cookie {
				m = withCookie(m, cookieOf(b, d.ask(0, tc.from, withCookie(m, "0011223344556677"))))
			}
			message, err := m.Pack()
			if err != nil {
				b.Fatal(err)
			}
			from, dst := netip.MustParseAddr(tc.from), make([]byte, 0, zone.MaxUDP)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i++; i%batchSizeForBench == 0 {
					d.count()
					d.begin(d.at.Add(time.Duration(i) * 20 * time.Microsecond))
					d.scratch.Now = d.at.Unix() // cookies stay fresh
				}
				binary.BigEndian.PutUint16(message, uint16(i))
				if d.answerOne(dst, message, from) == nil {
					b.Fatal("silence")
				}
			}
		})
	}
}

const batchSizeForBench = 64
