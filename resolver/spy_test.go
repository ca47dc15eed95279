package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// spy is an authority that remembers what it was asked. Names have one label below the zone and one address; a label that
// begins with "t" and a number has that TTL, and names that begin with "no" are not there.
type spy struct {
	zones []string
	mu    sync.Mutex
	seen  []sighting
	waits *hesitation // nil: it answers at once
}

// hesitation is that engines' first questions for a name's address are answered when that is released. Others get laterAddress.
type hesitation struct {
	name     string
	asked    chan struct{} // closed by the first
	once     sync.Once
	released chan struct{}
}

const laterAddress = "198.18.0.10"

// hesitates has a spy do so from now on.
func (s *spy) hesitates(h *hesitation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = h
}

// sighting is one question.
type sighting struct {
	name string // in the case that it came in
	from netip.Addr
	ecs  *dns.EDNS0_SUBNET
	at   time.Time
	// agent tells that no engine asked, but the agent beside it.
	agent bool
}

// spyAddress is that of the spy's records.
const spyAddress = "198.18.0.9"

// ServeDNS implements dns.Handler.
func (s *spy) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	from := netip.MustParseAddrPort(w.RemoteAddr().String()).Addr()
	seen := sighting{name: q.Question[0].Name, from: from, at: time.Now()}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.Compress = true, true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do()) // who does not repeat DO is kept by Knot Resolver for no time (RFC 3225 §3)
		for _, option := range o.Option {
			seen.agent = seen.agent || option.Option() == zone.OptionState
			if e, ok := option.(*dns.EDNS0_SUBNET); ok {
				seen.ecs = e
				reply := *e
				reply.SourceScope = e.SourceNetmask
				m.IsEdns0().Option = append(m.IsEdns0().Option, &reply)
			}
		}
	}
	s.mu.Lock()
	s.seen = append(s.seen, seen)
	hesitation := s.waits
	s.mu.Unlock()
	later := false
	if hesitation != nil && strings.EqualFold(hesitation.name, q.Question[0].Name) && q.Question[0].Qtype == dns.TypeA {
		select {
		case <-hesitation.released:
			later = true
		default:
			if later = seen.agent; !later {
				hesitation.once.Do(func() { close(hesitation.asked) })
				<-hesitation.released
			}
		}
	}

	record := func(owner, rest string) dns.RR {
		rr, err := dns.NewRR(owner + " " + rest)
		if err != nil {
			panic(err) // it is made of a question
		}
		return rr
	}
	name := strings.ToLower(q.Question[0].Name)
	i := slices.IndexFunc(s.zones, func(z string) bool { return dns.IsSubDomain(z, name) })
	if i < 0 {
		m.Rcode = dns.RcodeRefused
		_ = w.WriteMsg(m)
		return
	}
	apex, label := s.zones[i], strings.Split(name, ".")[0]
	ttl := "60"
	if n, _, _ := strings.Cut(strings.TrimPrefix(label, "t"), "-"); name != apex && n != label {
		if _, err := strconv.Atoi(n); err == nil {
			ttl = n
		}
	}
	switch t := q.Question[0].Qtype; {
	case name != apex && strings.HasPrefix(label, "no"):
		m.Rcode = dns.RcodeNameError
	case name == apex && t == dns.TypeNS:
		m.Answer = []dns.RR{record(q.Question[0].Name, "3600 IN NS ns."+apex)}
	case t == dns.TypeA && (name != apex):
		address := spyAddress
		if later {
			address = laterAddress
		}
		if name == "ns."+apex {
			address = spyAt
		}
		m.Answer = []dns.RR{record(q.Question[0].Name, ttl+" IN A "+address)}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{record(apex, fmt.Sprintf("3600 IN SOA ns.%s hostmaster.%s 1 1800 900 604800 3600", apex, apex))}
	}
	_ = w.WriteMsg(m)
}

// spyAt is where the spy is.
const spyAt = "10.3.0.1"

// of are the questions for a name, in any case.
func (s *spy) of(name string) (seen []sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.seen {
		if strings.EqualFold(a.name, name) {
			seen = append(seen, a)
		}
	}
	return seen
}

// startSpy has the zones, below corp, delegated to a spy that runs until the test ends.
func (w *world) startSpy(zones ...string) *spy {
	w.t.Helper()
	s := &spy{zones: zones}
	serve(w.t, s, spyAt)
	var b strings.Builder
	for _, z := range zones {
		fmt.Fprintf(&b, "%[1]s 3600 IN NS ns.%[1]s\nns.%[1]s 3600 IN A %[2]s\n", z, spyAt)
	}
	for dc := 1; dc <= 2; dc++ {
		a := w.datacenter(dc)[1]
		w.write(a, strings.Replace(w.text(1, "10.9.9.9"), " 1 1800", " 2 1800", 1)+b.String())
		a.reload <- struct{}{}
		eventually(w.t, a.at.String()+" delegates", func() bool {
			reply, err := ask(w.t.Context(), netip.Addr{}, a.at, question("x."+zones[0], dns.TypeA, false))
			return err == nil && len(reply.Ns) > 0 && reply.Ns[0].Header().Rrtype == dns.TypeNS
		})
	}
	return s
}

// serve answers over UDP and TCP at port 53 of an address until the test ends.
func serve(t testing.TB, h dns.Handler, at string) {
	t.Helper()
	udp, err := net.ListenPacket("udp", at+":53")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", at+":53")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: h}, {Listener: tcp, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}
