package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
)

// compliance is one question of how a server keeps to the protocol, whatever its data. The names are
// those of ISC's genreport (DNS-Compliance-Testing), the expectations those of its manual and of the RFCs.
type compliance struct {
	name    string
	flags   uint16 // of the header, without QR and opcode
	opcode  int    // not 0: a header alone
	qtype   uint16 // 0: SOA
	edns    bool
	version uint8
	size    uint16 // of UDP, 0: 4096
	eflags  uint16 // of EDNS
	options []byte // of EDNS
	tcp     bool
}

// Bits of the header and of EDNS.
const (
	flagAA, flagTC, flagRD, flagRA, flagZ, flagAD, flagCD = 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 6, 1 << 5, 1 << 4
	allFlags                                              = flagAA | flagTC | flagRD | flagRA | flagZ | flagAD | flagCD
	flagDO                                                = 1 << 15
	unknownEDNSFlag                                       = 1 << 7
)

// Options that are asked with.
const (
	optUnknown = "\x00\x64\x00\x00"
	optNSID    = "\x00\x03\x00\x00"
	optSubnet  = "\x00\x08\x00\x04\x00\x01\x00\x00"
	optExpire  = "\x00\x09\x00\x00"
	optCookie  = "\x00\x0a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08"
)

// complianceTests are those of genreport's groups EDNS, FULL and COMM, and some more of the kind.
var complianceTests = []compliance{
	{name: "dns"},
	{name: "aa", flags: flagAA},
	{name: "ad", flags: flagAD},
	{name: "cd", flags: flagCD},
	{name: "ra", flags: flagRA},
	{name: "rd", flags: flagRD},
	{name: "tc", flags: flagTC},
	{name: "zflag", flags: flagZ},
	{name: "opcode", opcode: 15},
	{name: "opcodeflg", opcode: 15, flags: allFlags},
	{name: "type666", qtype: 666},
	{name: "tcp", tcp: true},
	{name: "edns", edns: true},
	{name: "edns1", edns: true, version: 1},
	{name: "edns@512", edns: true, size: 512, eflags: flagDO, qtype: dns.TypeDNSKEY},
	{name: "edns@512 with a large RRset", edns: true, size: 512, qtype: dns.TypeTXT},
	{name: "ednsopt", edns: true, options: []byte(optUnknown)},
	{name: "edns1opt", edns: true, version: 1, options: []byte(optUnknown)},
	{name: "do", edns: true, eflags: flagDO},
	{name: "docd", edns: true, eflags: flagDO, flags: flagCD},
	{name: "edns1do", edns: true, version: 1, eflags: flagDO},
	{name: "docookie", edns: true, eflags: flagDO, options: []byte(optCookie)},
	{name: "ednsflags", edns: true, eflags: unknownEDNSFlag},
	{name: "optlist", edns: true, options: []byte(optNSID + optSubnet + optExpire + optCookie)},
	{name: "optlist backwards", edns: true, options: []byte(optCookie + optExpire + optSubnet + optNSID)},
	{name: "ednsnsid", edns: true, options: []byte(optNSID)},
	{name: "ednscookie", edns: true, options: []byte(optCookie)},
	{name: "ednsexpire", edns: true, options: []byte(optExpire)},
	{name: "ednssubnet", edns: true, options: []byte(optSubnet)},
	{name: "edns1nsid", edns: true, version: 1, options: []byte(optNSID)},
	{name: "edns1cookie", edns: true, version: 1, options: []byte(optCookie)},
	{name: "edns1expire", edns: true, version: 1, options: []byte(optExpire)},
	{name: "edns1subnet", edns: true, version: 1, options: []byte(optSubnet)},
	{name: "ednstcp", edns: true, size: 512, eflags: flagDO, qtype: dns.TypeDNSKEY, tcp: true},
	{name: "bind11", edns: true, eflags: flagDO, options: []byte(optCookie)},
	{name: "dig11", edns: true, flags: flagRD | flagAD, options: []byte(optCookie)},
	{name: "a size of 0", edns: true, size: 1},
	{name: "the largest size", edns: true, size: 65535},
	{name: "the highest version", edns: true, version: 255},
	{name: "every option over TCP", edns: true, options: []byte(optNSID + optSubnet + optExpire + optCookie + optUnknown), tcp: true},
	{name: "edns1 over TCP", edns: true, version: 1, tcp: true},
	{name: "opcode over TCP", opcode: 15, flags: allFlags, tcp: true},
	{name: "every flag of EDNS", edns: true, eflags: 0xffff},
}

// mixed are all sets of header flags with all kinds of EDNS.
func mixed() (all []compliance) {
	for set := range 1 << 7 {
		flags := uint16(0)
		for i, flag := range []uint16{flagAA, flagTC, flagRD, flagRA, flagZ, flagAD, flagCD} {
			if set>>i&1 == 1 {
				flags |= flag
			}
		}
		for i, c := range []compliance{
			{}, {edns: true}, {edns: true, eflags: flagDO}, {edns: true, eflags: 0xffff, options: []byte(optUnknown + optCookie)}, {edns: true, version: 3, options: []byte(optNSID)}, {opcode: 14},
		} {
			c.name, c.flags, c.tcp = fmt.Sprintf("mixed, flags %03x, kind %d", flags, i), flags, set%8 == 7
			all = append(all, c)
		}
	}
	return all
}

// types are genreport's group TYPE: questions for every type that is assigned, and for some that are not.
func types() (all []compliance) {
	for typ := range uint16(0xffff) {
		switch {
		case typ >= 128 && typ <= 255 || typ == dns.TypeOPT || typ == dns.TypeNone: // of questions, transactions and messages (RFC 6895 §3.1)
		case dns.TypeToString[typ] != "" || typ%4999 == 0:
			all = append(all, compliance{name: "type " + dns.Type(typ).String(), qtype: typ})
		}
	}
	return all
}

const complianceApex = "compliance.test."

// complianceZone has an RRset at its apex that takes more than 512 octets.
func complianceZone() zoneText {
	var b strings.Builder
	fmt.Fprintf(&b, "%[1]s 300 IN SOA ns.%[1]s hostmaster.%[1]s 1 7200 900 1209600 300\n%[1]s 300 IN NS ns.%[1]s\nns.%[1]s 300 IN A 192.0.2.1\n", complianceApex)
	for i := range 5 {
		fmt.Fprintf(&b, "%s 300 IN TXT \"%d %s\"\n", complianceApex, i, strings.Repeat("x", 150))
	}
	return zoneText{complianceApex, b.String()}
}

// message makes the question.
func (c compliance) message(id uint16) []byte {
	b := make([]byte, 12, 128)
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], uint16(c.opcode)<<11|c.flags)
	if c.opcode == 0 {
		b[5] = 1
		name := make([]byte, 255)
		end, _ := dns.PackDomainName(complianceApex, name, 0, nil, false)
		b = append(b, name[:end]...)
		qtype := c.qtype
		if qtype == 0 {
			qtype = dns.TypeSOA
		}
		b = binary.BigEndian.AppendUint16(b, qtype)
		b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	}
	if c.edns {
		b[11] = 1
		size := c.size
		switch size {
		case 0:
			size = 4096
		case 1:
			size = 0
		}
		b = append(b, 0, 0, byte(dns.TypeOPT))
		b = binary.BigEndian.AppendUint16(b, size)
		b = append(b, 0, c.version)
		b = binary.BigEndian.AppendUint16(b, c.eflags)
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.options)))
		b = append(b, c.options...)
	}
	return b
}

// judge returns what is wrong with a reply, in genreport's words where it has some.
func (c compliance) judge(reply []byte) (faults []string) {
	if reply == nil {
		return []string{"timeout"}
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		return []string{"malformed"}
	}
	fault := func(is bool, what string) {
		if is {
			faults = append(faults, what)
		}
	}
	opt := m.IsEdns0()
	has := map[uint16]dns.EDNS0{}
	version, eflags := uint8(0), uint16(0)
	if opt != nil {
		for _, o := range opt.Option {
			has[o.Option()] = o
		}
		version, eflags = opt.Version(), uint16(opt.Hdr.Ttl)
	}
	cookie, _ := has[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE)
	serverCookie := cookie != nil && len(cookie.Cookie) >= 32 && len(cookie.Cookie) <= 80
	rcode := dns.RcodeToString[m.Rcode]
	askedCookie := bytes.Contains(c.options, []byte(optCookie))

	fault(!m.Response, "noqr")
	fault(m.Opcode != c.opcode, "opcode")
	switch {
	case c.opcode != 0: // RFC 8906 §3.1.4
		fault(m.Rcode != dns.RcodeNotImplemented, rcode)
		fault(len(m.Question)+len(m.Answer)+len(m.Ns)+len(m.Extra) > 0, "sections are not empty")
		fault(m.Authoritative, "aa")
		fault(m.RecursionAvailable, "ra")
		fault(m.RecursionDesired, "rd")
		fault(m.AuthenticatedData, "ad")
		fault(m.CheckingDisabled, "cd")
	case c.version != 0: // RFC 6891 §6.1.3
		fault(m.Rcode != dns.RcodeBadVers, rcode)
		fault(len(m.Answer) > 0, "soa")
	default:
		badCookie := m.Rcode == dns.RcodeBadCookie && askedCookie && serverCookie
		fault(m.Rcode != dns.RcodeSuccess && !badCookie, rcode)
		fault(m.Rcode == dns.RcodeSuccess && !m.Authoritative, "noaa")
		soa := slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
		fault((c.qtype == 0 || c.qtype == dns.TypeSOA) && soa != (m.Rcode == dns.RcodeSuccess), "nosoa")
		fault(len(m.Question) != 1 || m.Question[0].Name != complianceApex, "mismatch")
	}
	if c.opcode == 0 {
		fault(m.RecursionDesired != (c.flags&flagRD != 0), "rd is not that of the question")
		fault(m.CheckingDisabled && c.flags&flagCD == 0, "cd")
		fault(m.AuthenticatedData, "ad") // nothing is signed here, so nothing can be authentic
	}
	fault(m.Zero, "z")
	fault(c.edns && c.opcode == 0 && opt == nil, "noopt")
	fault(!c.edns && opt != nil, "opt")
	fault(version != 0, "version-not-zero")
	fault(eflags&^flagDO != 0, "mbz")
	fault(opt != nil && c.version == 0 && eflags&flagDO != c.eflags&flagDO, "nodo") // RFC 3225 §3
	fault(has[100] != nil, "echoed")
	for code := range has {
		fault(!bytes.Contains(c.options, []byte{0, byte(code)}) && code != dns.EDNS0EDE && code != dns.EDNS0TCPKEEPALIVE, fmt.Sprintf("option %d, unasked", code))
	}
	fault(cookie != nil && !strings.HasPrefix(cookie.Cookie, "0102030405060708"), "cookie-mismatch")
	if !c.tcp {
		limit := 512
		if c.edns {
			limit = max(limit, int(c.size))
			if c.size == 0 {
				limit = 4096
			}
		}
		fault(len(reply) > limit, "toobig")
	}
	return faults
}

// startCompliance starts the server of a name with the zone.
func startCompliance(t *testing.T, name string) *server {
	t.Helper()
	zones := []zoneText{complianceZone()}
	switch name {
	case "ours":
		return startOurs(t, zones)
	case "ours with all features":
		return startOursWith(t, zones, dnsserver.Options{
			Identity: "bench",
			Settings: dnsserver.Settings{NSID: true, CookieSecrets: [][16]byte{{1, 2, 3}}, Limits: dnsserver.Limits{Responses: 10000, Queries: 50000, Slip: 2}},
		})
	}
	return startPeer(t, name, zones)
}

// excused are faults of peers that are known, and why they say nothing against the check: at
// least one other peer has none.
var excused = map[string]string{
	"NSD: aa":      flagsOfUnknownOpcodes,
	"NSD: ra":      flagsOfUnknownOpcodes,
	"NSD: rd":      flagsOfUnknownOpcodes,
	"NSD: cd":      flagsOfUnknownOpcodes,
	"NSD: z":       "it copies the reserved flag into errors, which is to be zero (RFC 1035 §4.1.1)",
	"NSD: timeout": "it closes a TCP connection on an unknown opcode",
	"Knot: rd":     flagsOfUnknownOpcodes,
}

const flagsOfUnknownOpcodes = "it copies flags into replies to unknown opcodes, where they mean nothing (RFC 8906 §3.1.4)"

// TestCompliance asks ours and all peers the same: ours has no fault, and what peers have is excused.
func TestCompliance(t *testing.T) {
	tests := slices.Concat(complianceTests, types(), mixed())
	for _, name := range []string{"ours", "ours with all features", "NSD", "Knot", "BIND"} {
		t.Run(name, func(t *testing.T) {
			s := startCompliance(t, name)
			for i, c := range tests {
				for _, fault := range c.judge(s.ask(t, c.message(uint16(i)), c.tcp)) {
					if why := excused[name+": "+fault]; why == "" {
						t.Errorf("%s: %s", c.name, fault)
					}
				}
			}
		})
	}
}
