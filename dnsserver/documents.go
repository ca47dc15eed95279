package dnsserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

// documentSettings is the kind of the document with the settings of the server's group, a controlpb.Settings.
const documentSettings = "settings"

// documents gives what the hub says beside zones to those who know what it means. A kind that
// nobody knows is kept for a later version of the program.
type documents struct {
	mu       sync.Mutex
	handlers map[string]func(body []byte) error
}

// handle sets who knows a kind. Errors must not quote the body, which may be secret.
func (d *documents) handle(kind string, f func(body []byte) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.handlers == nil {
		d.handlers = map[string]func([]byte) error{}
	}
	d.handlers[kind] = f
}

// take is what Replica.HandleDocuments wants.
func (d *documents) take(kind string, body []byte) error {
	d.mu.Lock()
	f := d.handlers[kind]
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(body)
}

// groupSettings configures a server by the settings of its group.
type groupSettings struct {
	mu       sync.Mutex
	server   *Server // nil before there is one
	message  *controlpb.Settings
	unopened error // why the server does not do all that the message says; nil: it does
}

// take reads settings and has the server go by them, or remembers them for it.
func (g *groupSettings) take(body []byte) error {
	var m controlpb.Settings
	if proto.Unmarshal(body, &m) != nil { // its error tells of the body
		return errors.New("the settings can't be read: they are no such message")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var addresses []netip.AddrPort
	if g.server != nil {
		addresses = g.server.Addresses()
	}
	settings, err := settingsFrom(&m, addresses)
	if err == nil {
		err = settings.check()
	}
	if err == nil && g.server != nil {
		err = g.server.Configure(settings)
	}
	if err != nil {
		return err
	}
	g.message, g.unopened = &m, nil
	return nil
}

// configure has the server, now that there is one, go by what was taken, if anything. An error
// is a transport that can't be opened now; retry tries again.
func (g *groupSettings) configure(server *Server) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.server = server
	return g.apply()
}

// retry is configure once more if it failed. It reports whether it was tried.
func (g *groupSettings) retry() (tried bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unopened == nil {
		return false, nil
	}
	return true, g.apply()
}

func (g *groupSettings) apply() error {
	if g.message == nil {
		return nil
	}
	settings, err := settingsFrom(g.message, g.server.Addresses())
	if err == nil {
		err = g.server.Configure(settings)
	}
	g.unopened = err
	return err
}

// settingsFrom reads settings for a server that answers on these addresses. Errors quote no secrets.
func settingsFrom(m *controlpb.Settings, addresses []netip.AddrPort) (Settings, error) {
	s := Settings{MaxUDP: int(m.GetMaxUdpSize()), NSID: m.GetNsid()}
	for i, secret := range m.GetCookieSecrets() {
		if len(secret) != len([16]byte{}) {
			return Settings{}, fmt.Errorf("cookie secret %d has %d octets instead of 16", i+1, len(secret))
		}
		s.CookieSecrets = append(s.CookieSecrets, [16]byte(secret))
	}
	var err error
	if s.Resolvers, err = networks("resolvers", m.GetResolvers()); err != nil {
		return Settings{}, err
	}
	l := m.GetLimits()
	s.Limits = Limits{
		LogOnly: l.GetLogOnly(), Responses: int(l.GetResponses()), Slip: int(l.GetSlip()), Queries: int(l.GetQueries()),
		IPv4Prefix: int(l.GetIpv4Prefix()), IPv6Prefix: int(l.GetIpv6Prefix()),
	}
	if s.Limits.Exempt, err = networks("exempt clients", l.GetExempt()); err != nil {
		return Settings{}, err
	}
	t := m.GetTransports()
	s.Transports.NoTCP = t.GetNoTcp()
	for _, each := range []struct {
		name string
		port uint32
		to   *[]netip.AddrPort
	}{{"DNS over TLS", t.GetDotPort(), &s.Transports.DoT}, {"DNS over HTTPS", t.GetDohPort(), &s.Transports.DoH}, {"HTTPDNS", t.GetHttpdnsPort(), &s.Transports.HTTPDNS}} {
		if each.port > 65535 {
			return Settings{}, fmt.Errorf("%s: %d is no port", each.name, each.port)
		}
		if each.port != 0 {
			*each.to = withPort(addresses, uint16(each.port))
		}
	}
	return s, nil
}

// networks reads networks in CIDR notation.
func networks(of string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("networks of %s: %w", of, err)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// withPort returns each address once, with another port.
func withPort(addresses []netip.AddrPort, port uint16) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range addresses {
		if to := netip.AddrPortFrom(a.Addr(), port); !slices.Contains(all, to) {
			all = append(all, to)
		}
	}
	return all
}
