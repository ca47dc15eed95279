package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// httpProbe is up if a request gets a status that is wanted, and the body what is wanted of it. Over TLS the target
// chooses between HTTP/1.1 and HTTP/2.
type httpProbe struct {
	dialer    *dialer
	security  *security // also for redirects from HTTP to HTTPS
	tls       bool
	port      uint16
	method    string
	path      string
	host      string // empty: the target's address
	wanted    []*steeringpb.StatusRange
	contains  []byte
	matches   *regexp.Regexp // nil: anything
	redirects int
}

func newHTTP(cfg *steeringpb.Http, env Env) (*httpProbe, error) {
	p := &httpProbe{
		dialer:    newDialer(env),
		tls:       cfg.GetTls(),
		method:    cfg.GetMethod(),
		path:      cfg.GetPath(),
		host:      cfg.GetHost(),
		wanted:    cfg.GetExpectedStatus(),
		contains:  []byte(cfg.GetBodyContains()),
		redirects: int(min(cfg.GetFollowRedirects(), 10)),
	}
	var err error
	if p.port, err = portOf(cfg.GetPort()); err != nil {
		return nil, err
	}
	if p.method == "" {
		p.method = http.MethodGet
	}
	if p.path == "" {
		p.path = "/"
	}
	switch {
	case !httpguts.ValidHeaderFieldName(p.method) || p.method == http.MethodConnect:
		return nil, errors.New("no such method")
	case !plain(p.path) || p.path[0] != '/':
		return nil, errors.New("a path begins with / and has no spaces")
	case !plain(p.host):
		return nil, errors.New("a host is a name, without spaces")
	}
	if len(p.wanted) == 0 {
		p.wanted = []*steeringpb.StatusRange{{First: 200, Last: 299}}
	}
	if text := cfg.GetBodyMatches(); text != "" {
		if p.matches, err = regexp.Compile(text); err != nil {
			return nil, fmt.Errorf("expression for the body: %w", err)
		}
	}
	name := cfg.GetServerName()
	if name == "" {
		name = hostname(p.host)
	}
	p.security, err = newSecurity(securityOf{
		name:        name,
		authorities: cfg.GetCertificateAuthority(),
		secret:      cfg.GetClientCertificate(),
		skipVerify:  cfg.GetSkipVerify(),
		protocols:   []string{"h2", "http/1.1"},
	}, env)
	return p, err
}

// step is one request of a probe: the first, or that to which a redirect leads.
type step struct {
	tls    bool
	port   uint16
	method string
	host   string // with a port if it is not the usual one
	path   string
}

func (p *httpProbe) ask(ctx context.Context, target netip.Addr) Result {
	at := step{tls: p.tls, port: p.port, method: p.method, host: p.host, path: p.path}
	if at.host == "" {
		at.host = authority(target.String(), at.tls, at.port)
	}
	for followed := 0; ; followed++ {
		answer, result := p.request(ctx, target, at)
		if result.Outcome != Up {
			return result
		}
		next, ok := redirect(at, answer)
		if !ok || p.redirects == 0 {
			return p.judge(answer)
		}
		if followed == p.redirects {
			return down(Status, fmt.Sprintf("more than %d redirects", p.redirects))
		}
		at = next
	}
}

// request asks the target's own address, whatever the host is.
func (p *httpProbe) request(ctx context.Context, target netip.Addr, at step) (response, Result) {
	security, scheme, exchange := p.security, "https", exchange1
	if !at.tls {
		security, scheme = nil, "http"
	}
	c, told, result := security.dial(ctx, p.dialer, target, at.port)
	if result.Outcome != Up {
		return response{}, result
	}
	defer c.Close()
	if told.protocol == "h2" {
		exchange = exchange2
	}
	r := request{method: at.method, scheme: scheme, host: at.host, path: at.path}
	answer, err := exchange(c, r, p.matches != nil || len(p.contains) > 0)
	if err != nil {
		return response{}, notAnswered(err, "the answer is not HTTP")
	}
	return answer, up()
}

func (p *httpProbe) judge(answer response) Result {
	status := uint32(answer.status)
	for _, r := range p.wanted {
		if r.GetFirst() <= status && status <= r.GetLast() {
			return p.judgeBody(answer.body)
		}
	}
	return down(Status, fmt.Sprintf("HTTP %d, wanted %s", status, ranges(p.wanted)))
}

func (p *httpProbe) judgeBody(body []byte) Result {
	switch {
	case !bytes.Contains(body, p.contains):
		return down(Content, "the body lacks the text wanted")
	case p.matches != nil && !p.matches.Match(body):
		return down(Content, "the body does not match the expression wanted")
	default:
		return up()
	}
}

func ranges(all []*steeringpb.StatusRange) string {
	texts := make([]string, 0, len(all))
	for _, r := range all {
		text := strconv.Itoa(int(r.GetFirst()))
		if r.GetLast() != r.GetFirst() {
			text += "-" + strconv.Itoa(int(r.GetLast()))
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// redirect returns where an answer sends the client, if it stays with the host: what another host answers says nothing
// about the target.
func redirect(at step, answer response) (step, bool) {
	switch answer.status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return step{}, false
	}
	scheme := "http"
	if at.tls {
		scheme = "https"
	}
	here, err := url.Parse(scheme + "://" + at.host + at.path)
	if err != nil {
		return step{}, false
	}
	there, err := here.Parse(answer.field("location"))
	if err != nil || answer.field("location") == "" || there.Scheme != "http" && there.Scheme != "https" ||
		!strings.EqualFold(there.Hostname(), here.Hostname()) {
		return step{}, false
	}
	next := step{tls: there.Scheme == "https", port: at.port, method: at.method, host: there.Host, path: there.RequestURI()}
	if there.Host != here.Host || there.Scheme != here.Scheme {
		if next.port, err = portIn(there); err != nil {
			return step{}, false
		}
	}
	if answer.status <= http.StatusSeeOther && at.method != http.MethodHead {
		next.method = http.MethodGet
	}
	if !plain(next.path) || !plain(next.host) || next.path[0] != '/' {
		return step{}, false
	}
	return next, true
}

// portIn returns the port of a URL.
func portIn(u *url.URL) (uint16, error) {
	if u.Port() == "" {
		if u.Scheme == "https" {
			return 443, nil
		}
		return 80, nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0, err
	}
	return portOf(uint32(n))
}

// authority is an address as it stands in a request: an IPv6 address in brackets, a port that is not the usual one after
// it (RFC 9110 7.2).
func authority(address string, secure bool, port uint16) string {
	if secure && port == 443 || !secure && port == 80 {
		if strings.Contains(address, ":") {
			return "[" + address + "]"
		}
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// hostname is a host without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
