package dnsserver

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// resolution is a reply in the JSON form that public resolvers share.
type resolution struct {
	Status     int                `json:"Status"` // the response code, extended ones included
	TC         bool               `json:"TC"`
	RD         bool               `json:"RD"`
	RA         bool               `json:"RA"`
	AD         bool               `json:"AD"`
	CD         bool               `json:"CD"`
	Question   []resolvedQuestion `json:"Question"`
	Answer     []resolvedRecord   `json:"Answer,omitempty"`
	Authority  []resolvedRecord   `json:"Authority,omitempty"`
	Additional []resolvedRecord   `json:"Additional,omitempty"`
	// Subnet is ADDRESS/SCOPE: the answer holds for this network; "" if the client named none.
	Subnet  string `json:"edns_client_subnet,omitempty"`
	Comment string `json:"Comment,omitempty"` // Extended DNS Errors (RFC 8914)
}

type resolvedQuestion struct {
	Name string `json:"name"`
	Type uint16 `json:"type"`
}

type resolvedRecord struct {
	Name string `json:"name"`
	Type uint16 `json:"type"`
	TTL  uint32 `json:"TTL"`
	Data string `json:"data"` // presentation form
}

// webError is what is said of a request that is no question.
type webError struct {
	Error string `json:"error"`
}

func jsonResponse(status int, maxAge int64, v any) webResponse {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // these types have nothing that could not be encoded
	}
	return webResponse{status: status, contentType: "application/json", maxAge: maxAge, body: body.Bytes()}
}

// resolve answers HTTPDNS: the question in parameters, the answer as JSON. Whatever DNS has an
// answer to is a success of HTTP.
func (w *web) resolve(r *http.Request, c *stream) webResponse {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		response := jsonResponse(http.StatusMethodNotAllowed, -1, webError{"the method is to be GET"})
		response.allow = "GET, HEAD"
		return response
	}
	values, err := parameters(r)
	if err != nil {
		return jsonResponse(http.StatusBadRequest, -1, webError{err.Error()})
	}
	q, err := parseResolve(values)
	if err != nil {
		return jsonResponse(http.StatusBadRequest, -1, webError{err.Error()})
	}
	defer w.turn(c)()
	if r.Context().Err() != nil {
		return refused(http.StatusServiceUnavailable, "you have gone")
	}
	x := w.httpdns.get()
	defer w.httpdns.put(x)
	x.responder.scratch.KeepAlive = 0
	x.responder.scratch.TrustSubnet = true // the client speaks for itself
	reply := x.responder.answer(x.reply[:0], q.message(), c.client)
	if reply == nil {
		return jsonResponse(http.StatusInternalServerError, -1, webError{"answering this question failed before"})
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		return jsonResponse(http.StatusInternalServerError, -1, webError{"the answer has no JSON form: " + err.Error()})
	}
	return jsonResponse(http.StatusOK, maxAge(reply), q.resolution(&m))
}

// parameters returns those of the URL, each at most once if it is of any meaning.
func parameters(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the parameters are not well formed")
	}
	return values, nil
}

// resolveQuestion is what HTTPDNS is asked.
type resolveQuestion struct {
	name   zone.Name
	text   string // the name as it was asked
	qtype  uint16
	subnet netip.Prefix // the client's network; not valid: that of its connection
	do, cd bool
}

// parseResolve reads the parameters of /resolve; those that it does not know mean nothing.
//
//	name                        what is asked for, with or without the final dot
//	type                        a mnemonic or a number, default A
//	client, edns_client_subnet  an address, or ADDRESS/BITS: on whose behalf (RFC 7871)
//	do, cd                      1 or true: flags of the query
func parseResolve(values url.Values) (q resolveQuestion, err error) {
	one := func(name string) string {
		if len(values[name]) > 1 && err == nil {
			err = fmt.Errorf("%s is given more than once", name)
		}
		return values.Get(name)
	}
	name, typ, client, subnet, do, cd := one("name"), one("type"), one("client"), one("edns_client_subnet"), one("do"), one("cd")
	if err != nil {
		return q, err
	}
	if q.name, err = parseQuestionName(name); err != nil {
		return q, err
	}
	q.text = q.name.String()
	if q.qtype, err = parseQuestionType(typ); err != nil {
		return q, err
	}
	if client != "" && subnet != "" && client != subnet {
		return q, errors.New("client and edns_client_subnet say the same: give one of them")
	}
	if client = cmp.Or(client, subnet); client != "" {
		if q.subnet, err = parseSubnet(client); err != nil {
			return q, err
		}
	}
	if q.do, err = parseFlag("do", do); err != nil {
		return q, err
	}
	q.cd, err = parseFlag("cd", cd)
	return q, err
}

func parseFlag(name, text string) (bool, error) {
	switch text {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	default:
		return false, fmt.Errorf("%s=%q is neither 1, 0, true nor false", name, text)
	}
}

func parseQuestionName(text string) (zone.Name, error) {
	if text == "" {
		return "", errors.New("name is missing: /resolve?name=www.example.com&type=A")
	}
	for _, c := range text {
		if c > '~' {
			return "", fmt.Errorf("name %q is not in ASCII: give its labels in the form xn--... (RFC 5890)", text)
		}
	}
	if text == "@" {
		return "", errors.New(`name "@" is only known in zone files`)
	}
	return zone.ParseName(text, "")
}

func parseQuestionType(text string) (uint16, error) {
	if text == "" {
		return zone.TypeA, nil
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
		return uint16(n), nil
	}
	if typ, ok := zone.TypeFromString(text); ok && typ != 0 {
		return typ, nil
	}
	return 0, fmt.Errorf("type %q is neither a mnemonic such as AAAA nor a number from 1 to 65535", text)
}

// parseSubnet reads ADDRESS or ADDRESS/BITS; what is behind the bits counts as zero.
func parseSubnet(text string) (netip.Prefix, error) {
	fault := fmt.Errorf("client %q is neither an address nor a network ADDRESS/BITS", text)
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fault
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fault
	}
	return p.Masked(), nil
}

// message is the question as a DNS message.
func (q *resolveQuestion) message() []byte {
	const flagCD, flagDO = 0x0010, 1 << 15
	flags := uint16(0)
	if q.cd {
		flags = flagCD
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 512), 0)
	b = binary.BigEndian.AppendUint16(b, flags)
	for _, count := range [...]uint16{1, 0, 0, 1} {
		b = binary.BigEndian.AppendUint16(b, count)
	}
	b = append(b, q.name...)
	b = binary.BigEndian.AppendUint16(b, q.qtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)

	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, zone.TypeOPT)
	b = binary.BigEndian.AppendUint16(b, zone.MaxUDP)
	b = append(b, 0, 0)
	flags = 0
	if q.do {
		flags = flagDO
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	if !q.subnet.IsValid() {
		return binary.BigEndian.AppendUint16(b, 0)
	}
	// RFC 7871 §6: family, source and scope prefix length, as many octets as the source has.
	family, address := uint16(1), q.subnet.Addr().AsSlice()
	if q.subnet.Addr().Is6() {
		family = 2
	}
	address = address[:(q.subnet.Bits()+7)/8]
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(address)))
	b = binary.BigEndian.AppendUint16(b, dns.EDNS0SUBNET)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(address)))
	b = binary.BigEndian.AppendUint16(b, family)
	b = append(b, byte(q.subnet.Bits()), 0)
	return append(b, address...)
}

// resolution is the reply to q in its JSON form.
func (q *resolveQuestion) resolution(m *dns.Msg) *resolution {
	out := &resolution{
		Status: m.Rcode, TC: m.Truncated, RD: m.RecursionDesired, RA: m.RecursionAvailable, AD: m.AuthenticatedData, CD: m.CheckingDisabled,
		Question:  []resolvedQuestion{{q.text, q.qtype}},
		Answer:    records(m.Answer),
		Authority: records(m.Ns), Additional: records(m.Extra),
	}
	scope := uint8(0) // also where the reply has no option: then it holds for all
	if o := m.IsEdns0(); o != nil {
		var comments []string
		for _, option := range o.Option {
			switch option := option.(type) {
			case *dns.EDNS0_SUBNET:
				scope = option.SourceScope
			case *dns.EDNS0_EDE:
				comments = append(comments, comment(option))
			}
		}
		out.Comment = strings.Join(comments, "; ")
	}
	if q.subnet.IsValid() {
		out.Subnet = q.subnet.Addr().String() + "/" + strconv.Itoa(int(scope))
	}
	return out
}

// comment is an Extended DNS Error in words.
func comment(e *dns.EDNS0_EDE) string {
	text := dns.ExtendedErrorCodeToString[e.InfoCode]
	if text == "" {
		text = "Extended DNS Error"
	}
	text += " (EDE " + strconv.Itoa(int(e.InfoCode)) + ")"
	if e.ExtraText != "" {
		text += ": " + e.ExtraText
	}
	return text
}

func records(section []dns.RR) (out []resolvedRecord) {
	for _, rr := range section {
		h := rr.Header()
		if h.Rrtype == dns.TypeOPT {
			continue
		}
		data := strings.TrimPrefix(rr.String(), h.String())
		if unknown, ok := rr.(*dns.RFC3597); ok {
			data = fmt.Sprintf(`\# %d %s`, len(unknown.Rdata)/2, unknown.Rdata)
		}
		out = append(out, resolvedRecord{h.Name, h.Rrtype, h.Ttl, data})
	}
	return out
}
