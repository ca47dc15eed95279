package probe

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func dnsOf(cfg *steeringpb.Dns, timeout time.Duration) *steeringpb.Probe {
	p := probeOf(timeout)
	p.Type = &steeringpb.Probe_Dns{Dns: cfg}
	return p
}

// dnsServer serves on UDP and TCP on one port.
func dnsServer(t testing.TB, h dns.Handler) uint32 {
	t.Helper()
	var packets net.PacketConn
	var l net.Listener
	var port uint16
	for packets == nil { // until a port is free on both
		l, port = listen(t, "127.0.0.1")
		packets, _ = net.ListenPacket("udp", l.Addr().String())
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: h}, {Listener: l, Handler: h}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return uint32(port)
}

func TestDNS(t *testing.T) {
	rr := func(text string) dns.RR {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var lost atomic.Uint32
	port := dnsServer(t, dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		_, overTCP := w.RemoteAddr().(*net.TCPAddr)
		switch name := strings.ToLower(q.Question[0].Name); name {
		case "app.pay.bank.":
			m.Answer = []dns.RR{rr("APP.pay.bank. 60 CNAME web.pay.bank."), rr("web.pay.bank. 5 A 10.0.0.1"), rr("web.pay.bank. 60 A 10.0.0.2")}
		case "text.pay.bank.":
			m.Answer = []dns.RR{rr(`text.pay.bank. 60 TXT "evil words" "b c"`)}
		case "none.pay.bank.":
			m.Rcode = dns.RcodeNameError
		case "refused.pay.bank.":
			m.Rcode = dns.RcodeRefused
			m.Question = nil
		case "odd.pay.bank.":
			m.Rcode = 12
		case "big.pay.bank.":
			m.Answer = []dns.RR{rr("big.pay.bank. 60 A 10.0.0.1")}
			if !overTCP {
				m.Answer, m.Truncated = nil, true
			}
		case "guessed.pay.bank.": // three that are no answers come before the answer
			other := m.Copy()
			other.Id++
			_ = w.WriteMsg(other)
			other = m.Copy()
			other.Question[0].Name = "other.bank."
			_ = w.WriteMsg(other)
			_, _ = w.Write([]byte("evil"))
		case "lost.pay.bank.":
			if lost.Add(1) == 1 {
				return
			}
		case "silent.pay.bank.":
			return
		case "other.pay.bank.":
			m.Question[0].Name = "evil.words."
		}
		_ = w.WriteMsg(m)
	}))
	for name, c := range map[string]struct {
		cfg  *steeringpb.Dns
		want string
	}{
		"NOERROR is up":                              {&steeringpb.Dns{Name: "pay.bank", Type: "SOA"}, "Up"},
		"types and names are in any case":            {&steeringpb.Dns{Name: "APP.Pay.Bank.", Type: "a", Answers: []string{"10.0.0.1"}}, "Up"},
		"answers are up":                             {&steeringpb.Dns{Name: "app.pay.bank", Type: "A", Answers: []string{"10.0.0.2", "10.0.0.1"}}, "Up"},
		"one answer that is missing is down":         {&steeringpb.Dns{Name: "app.pay.bank", Type: "A", Answers: []string{"10.0.0.2", "10.0.0.3"}}, "Down: the answer lacks 10.0.0.3"},
		"so is a text":                               {&steeringpb.Dns{Name: "text.pay.bank", Type: "TXT", Answers: []string{`"a"`}}, `Down: the answer lacks "a"`},
		"a text is compared string by string":        {&steeringpb.Dns{Name: "text.pay.bank", Type: "TXT", Answers: []string{`"evil words" "b c"`}}, "Up"},
		"a name is absolute":                         {&steeringpb.Dns{Name: "app.pay.bank", Type: "CNAME", Answers: []string{"WEB.pay.bank"}}, "Up"},
		"NXDOMAIN is down":                           {&steeringpb.Dns{Name: "none.pay.bank", Type: "A"}, "Down: NXDOMAIN, wanted NOERROR"},
		"unless it is wanted":                        {&steeringpb.Dns{Name: "none.pay.bank", Type: "A", Rcode: "nxdomain"}, "Up"},
		"then NOERROR is down":                       {&steeringpb.Dns{Name: "app.pay.bank", Type: "A", Rcode: "NXDOMAIN"}, "Down: NOERROR, wanted NXDOMAIN"},
		"REFUSED without the question is down":       {&steeringpb.Dns{Name: "refused.pay.bank", Type: "A"}, "Down: REFUSED, wanted NOERROR"},
		"so is an rcode without a name":              {&steeringpb.Dns{Name: "odd.pay.bank", Type: "A"}, "Down: RCODE12, wanted NOERROR"},
		"a truncated answer is asked again over TCP": {&steeringpb.Dns{Name: "big.pay.bank", Type: "A", Answers: []string{"10.0.0.1"}}, "Up"},
		"unless its rcode is enough":                 {&steeringpb.Dns{Name: "big.pay.bank", Type: "A"}, "Up"},
		"silence is down":                            {&steeringpb.Dns{Name: "silent.pay.bank", Type: "A"}, "Down: no answer within 150ms"},
	} {
		for _, tcp := range []bool{false, true} {
			how := map[bool]string{false: "UDP", true: "TCP"}[tcp]
			t.Run(name+", over "+how, func(t *testing.T) {
				c.cfg.Port, c.cfg.Tcp = port, tcp
				timeout, want := late, c.want
				if strings.Contains(want, "150ms") {
					timeout = soon
					if tcp {
						want = "Down: connected, but no answer within 150ms"
					}
				}
				is(t, ask(t, dnsOf(c.cfg, timeout), anywhere(), localhost), want)
			})
		}
	}
	t.Run("over UDP what does not answer the question is passed over", func(t *testing.T) {
		is(t, ask(t, dnsOf(&steeringpb.Dns{Port: port, Name: "guessed.pay.bank", Type: "A"}, late), anywhere(), localhost), "Up")
	})
	t.Run("over UDP a lost packet is not a lost target", func(t *testing.T) {
		is(t, ask(t, dnsOf(&steeringpb.Dns{Port: port, Name: "lost.pay.bank", Type: "A"}, 600*time.Millisecond), anywhere(), localhost), "Up")
		if n := lost.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("over TCP an answer to another question is down", func(t *testing.T) {
		is(t, ask(t, dnsOf(&steeringpb.Dns{Port: port, Name: "other.pay.bank", Type: "A", Tcp: true}, late), anywhere(), localhost), "Down: the answer is not to the question")
	})
	for how, want := range map[bool]string{false: "Down: connection refused", true: "Down: connection refused"} {
		is(t, ask(t, dnsOf(&steeringpb.Dns{Port: uint32(closedPort(t)), Name: "a", Type: "A", Tcp: how}, late), anywhere(), localhost), want)
		is(t, ask(t, dnsOf(&steeringpb.Dns{Port: port, Name: "a", Type: "A", Tcp: how}, late), Env{}, netip.MustParseAddr("127.0.0.2")), "Unknown: denied by the datacenter's probes.deniedNetworks")
	}
}
