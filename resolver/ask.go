package resolver

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// question asks for a name's records; recursive if so wanted.
func question(name string, rrtype uint16, recursive bool) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, rrtype)
	m.RecursionDesired = recursive
	return m.SetEdns0(1232, false)
}

// ask sends a question over UDP, again over TCP if the answer is cut off. from may be the zero Addr: the kernel chooses.
// A lost packet is sent again once, when half the time that ctx leaves is over.
func ask(ctx context.Context, from netip.Addr, to netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	over := func(ctx context.Context, network string) (*dns.Msg, error) {
		c := dns.Client{Net: network, Dialer: &net.Dialer{}}
		if from.IsValid() {
			if network == "udp" {
				c.Dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			} else {
				c.Dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			}
		}
		if deadline, ok := ctx.Deadline(); ok {
			c.Timeout = time.Until(deadline)
		}
		conn, err := c.DialContext(ctx, to.String())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		reply, _, err := c.ExchangeWithConnContext(ctx, m, conn)
		return reply, err
	}
	first := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		first, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	reply, err := over(first, "udp")
	if err != nil && ctx.Err() == nil {
		reply, err = over(ctx, "udp")
	}
	if err == nil && reply.Truncated {
		reply, err = over(ctx, "tcp")
	}
	return reply, err
}

// reachable is where a program on the same machine asks a server that listens there.
func reachable(listen netip.AddrPort) netip.AddrPort {
	switch a := listen.Addr(); {
	case !a.IsUnspecified():
		return listen
	case a.Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port())
	default:
		return netip.AddrPortFrom(netip.IPv6Loopback(), listen.Port())
	}
}

// beside is where a program asks a server on the same machine from: over IPv4 one of many addresses, as engines that limit how
// often an address asks may know no exceptions (Unbound). IPv6 has one loopback address: the zero Addr leaves the choice to
// the kernel.
func beside(at netip.AddrPort) netip.Addr {
	if !at.Addr().Is4() {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{127, byte(1 + rand.N(254)), byte(rand.N(256)), byte(1 + rand.N(254))})
}

// generation is the one of the configuration that a server answers by, "" if it has none.
func generation(ctx context.Context, at netip.AddrPort) (string, error) {
	reply, err := ask(ctx, beside(at), at, question(engine.ReadyName, dns.TypeTXT, true))
	if err != nil {
		return "", err
	}
	for _, rr := range reply.Answer {
		if t, ok := rr.(*dns.TXT); ok {
			return strings.Join(t.Txt, ""), nil
		}
	}
	return "", nil
}

// said is what an answer says of its question's own name: the records there without TTL, in order, or its RCODE.
func said(m *dns.Msg) string {
	if len(m.Question) != 1 {
		return ""
	}
	records := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		h := rr.Header()
		if strings.EqualFold(h.Name, m.Question[0].Name) && (h.Rrtype == m.Question[0].Qtype || h.Rrtype == dns.TypeCNAME) {
			records = append(records, strings.ToLower(strings.TrimPrefix(rr.String(), h.String())))
		}
	}
	if len(records) > 1 {
		records = records[1:] // the RCODE is that of the end of the chain
	}
	slices.Sort(records)
	return strings.Join(records, "\n")
}
