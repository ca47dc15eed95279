package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// dnsProbe is up if a query gets the rcode that is wanted, with the answers that are wanted among others.
type dnsProbe struct {
	dialer  *dialer
	port    uint16
	tcp     bool
	query   []byte // with an ID of zero
	asked   dns.Question
	rcode   int
	answers []dns.RR // their rdata; owner and TTL say nothing
}

func newDNS(cfg *steeringpb.Dns, env Env) (*dnsProbe, error) {
	p := &dnsProbe{dialer: newDialer(env), tcp: cfg.GetTcp()}
	var err error
	if p.port, err = portOf(cfg.GetPort()); err != nil {
		return nil, err
	}
	kind, ok := dns.StringToType[strings.ToUpper(cfg.GetType())]
	if !ok {
		return nil, fmt.Errorf("no such type of records: %q", cfg.GetType())
	}
	if _, ok := dns.IsDomainName(cfg.GetName()); !ok {
		return nil, fmt.Errorf("%q is no domain name", cfg.GetName())
	}
	if rcode := cfg.GetRcode(); rcode != "" {
		if p.rcode, ok = dns.StringToRcode[strings.ToUpper(rcode)]; !ok || p.rcode > 15 {
			return nil, fmt.Errorf("no such rcode: %q", rcode)
		}
	}
	for _, text := range cfg.GetAnswers() {
		r, err := dns.NewRR(". 0 IN " + dns.TypeToString[kind] + " " + text)
		if err != nil || r == nil || strings.Contains(text, "\n") {
			return nil, fmt.Errorf("%q is no data of a record of type %s", text, dns.TypeToString[kind])
		}
		p.answers = append(p.answers, r)
	}
	var q dns.Msg
	q.SetQuestion(dns.Fqdn(cfg.GetName()), kind)
	q.Id = 0
	p.asked = q.Question[0]
	p.query, err = q.Pack()
	return p, err
}

func (p *dnsProbe) ask(ctx context.Context, target netip.Addr) Result {
	query := append([]byte{0, 0}, p.query...) // in TCP the length is in front
	binary.BigEndian.PutUint16(query, uint16(len(p.query)))
	binary.BigEndian.PutUint16(query[2:], uint16(rand.Uint32()))
	if p.tcp {
		return p.askTCP(ctx, target, query)
	}
	return p.askUDP(ctx, target, query)
}

func (p *dnsProbe) askUDP(ctx context.Context, target netip.Addr, query []byte) Result {
	c, err := p.dialer.dial(ctx, "udp", target, p.port)
	if err != nil {
		return notConnected(err)
	}
	defer c.Close()
	buffer := make([]byte, 4096)
	var reply *dns.Msg
	err = insist(ctx, c, func() error {
		_, err := c.Write(query[2:])
		return err
	}, func() (bool, error) {
		n, err := c.Read(buffer)
		if err != nil {
			return false, err
		}
		var ok bool
		reply, ok = p.parse(buffer[:n], query[2:]) // what is no answer may be of somebody who guesses
		return ok, nil
	})
	switch {
	case err != nil:
		return notConnected(err)
	case reply.Truncated && len(p.answers) > 0:
		return p.askTCP(ctx, target, query)
	default:
		return p.judge(reply)
	}
}

func (p *dnsProbe) askTCP(ctx context.Context, target netip.Addr, query []byte) Result {
	c, err := p.dialer.dial(ctx, "tcp", target, p.port)
	if err != nil {
		return notConnected(err)
	}
	defer c.Close()
	if _, err := c.Write(query); err != nil {
		return notAnswered(err, "the answer is not DNS")
	}
	length := make([]byte, 2)
	if _, err := io.ReadFull(c, length); err != nil {
		return notAnswered(err, "the answer is not DNS")
	}
	reply := make([]byte, binary.BigEndian.Uint16(length))
	if _, err := io.ReadFull(c, reply); err != nil {
		return notAnswered(err, "the answer is not DNS")
	}
	m, ok := p.parse(reply, query[2:])
	if !ok {
		return down(Protocol, "the answer is not to the question")
	}
	return p.judge(m)
}

// parse returns the reply if it is one to the query. What is left out of a truncated one can't be parsed at times.
func (p *dnsProbe) parse(reply, query []byte) (*dns.Msg, bool) {
	m := &dns.Msg{}
	if len(reply) < 12 || [2]byte(reply) != [2]byte(query) || m.Unpack(reply) != nil && !m.Truncated {
		return nil, false
	}
	if !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil, false
	}
	switch {
	case len(m.Question) == 0: // as some do that can't parse or won't answer
		return m, m.Rcode != dns.RcodeSuccess
	case len(m.Question) > 1:
		return nil, false
	}
	q := m.Question[0]
	return m, q.Qtype == p.asked.Qtype && q.Qclass == p.asked.Qclass && strings.EqualFold(q.Name, p.asked.Name)
}

func (p *dnsProbe) judge(m *dns.Msg) Result {
	if m.Rcode != p.rcode {
		return down(Status, fmt.Sprintf("%s, wanted %s", rcodeWords(m.Rcode), rcodeWords(p.rcode)))
	}
	for _, wanted := range p.answers {
		if !among(m.Answer, wanted) {
			return down(Content, "the answer lacks "+strings.TrimPrefix(wanted.String(), wanted.Header().String()))
		}
	}
	return up()
}

func rcodeWords(rcode int) string {
	if text, ok := dns.RcodeToString[rcode]; ok {
		return text
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

// among reports whether one of the records has the type and data of wanted.
func among(records []dns.RR, wanted dns.RR) bool {
	for _, r := range records {
		if r.Header().Rrtype != wanted.Header().Rrtype {
			continue
		}
		owner := r.Header().Name
		r.Header().Name = wanted.Header().Name
		same := dns.IsDuplicate(r, wanted)
		r.Header().Name = owner
		if same {
			return true
		}
	}
	return false
}
