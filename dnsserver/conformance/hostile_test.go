package conformance

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// odd is a message that no resolver sends, and the reply that ours owes to it.
type odd struct {
	name    string
	message []byte
	want    string   // "silence", or the rcode, with the error of a TSIG record behind it
	also    []string // other replies that are as good
	// alone says why no peer replies as ours does; "" if one does.
	alone string
	tcp   bool
}

// compose makes a message of a header's flags, counts of its sections and their octets.
func compose(flags uint16, counts [4]uint16, sections ...string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, flags)
	for _, n := range counts {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return append(b, strings.Join(sections, "")...)
}

// Parts of messages, for the zone of complianceZone.
const (
	oddName     = "\x0acompliance\x04test\x00"
	oddQuestion = oddName + "\x00\x06\x00\x01"
	optRecord   = "\x00\x00\x29\x10\x00\x00\x00\x00\x00" // and its length and options
	emptyOPT    = optRecord + "\x00\x00"
	aRecord     = oddName + "\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x0a\x00\x00\x01"
)

// tsigRecord is one with a key that nobody knows.
func tsigRecord() string {
	rdata := "\x0bhmac-sha256\x00" + "\x00\x00\x65\x00\x00\x00" + "\x01\x2c" + "\x00\x20" + strings.Repeat("m", 32) + "\x00\x00\x00\x00\x00\x00"
	return "\x03key\x00\x00\xfa\x00\xff\x00\x00\x00\x00" + string(binary.BigEndian.AppendUint16(nil, uint16(len(rdata)))) + rdata
}

func odds() []odd {
	question := func(additional ...string) []byte {
		return compose(0, [4]uint16{1, 0, 0, uint16(len(additional))}, append([]string{oddQuestion}, additional...)...)
	}
	opt := func(options string) []byte {
		return question(optRecord + string(binary.BigEndian.AppendUint16(nil, uint16(len(options)))) + options)
	}
	asks := func(typ, class uint16) []byte {
		return compose(0, [4]uint16{1}, oddName, string([]byte{byte(typ >> 8), byte(typ), byte(class >> 8), byte(class)}))
	}
	named := func(name string) []byte { return compose(0, [4]uint16{1}, name, "\x00\x06\x00\x01") }
	cookie := func(size int) []byte {
		return opt("\x00\x0a\x00" + string(rune(size)) + strings.Repeat("c", size))
	}
	const formerr, silence, notimp, refused = "FORMERR", "silence", "NOTIMP", "REFUSED"
	list := []odd{
		{name: "an empty datagram", message: []byte{}, want: silence},
		{name: "an empty message over TCP", message: []byte{}, want: silence, tcp: true},
		{name: "half a header", message: make([]byte, 6), want: silence},
		{name: "a response", message: compose(1<<15, [4]uint16{1}, oddQuestion), want: silence},
		{name: "a response over TCP", message: compose(1<<15, [4]uint16{1}, oddQuestion), want: silence, tcp: true},
		{name: "a response to a NOTIFY", message: compose(1<<15|4<<11, [4]uint16{1}, oddQuestion), want: silence},
		{name: "a header alone", message: compose(0, [4]uint16{}), want: formerr},
		{name: "a header alone over TCP", message: compose(0, [4]uint16{}), want: formerr, tcp: true},
		{name: "no question, but EDNS", message: compose(0, [4]uint16{0, 0, 0, 1}, emptyOPT), want: formerr},
		{name: "a count of questions without one", message: compose(0, [4]uint16{1}), want: formerr},
		{name: "two questions", message: compose(0, [4]uint16{2}, oddQuestion, oddQuestion), want: formerr},
		{name: "65535 questions", message: compose(0, [4]uint16{65535}, oddQuestion), want: formerr},
		{name: "a question cut in its name", message: compose(0, [4]uint16{1}, oddQuestion[:8]), want: formerr},
		{name: "a question cut in its type", message: compose(0, [4]uint16{1}, oddName+"\x00"), want: formerr},
		{name: "a question cut in its class", message: compose(0, [4]uint16{1}, oddName+"\x00\x06\x00"), want: formerr},
		{name: "a name that points to itself", message: named("\xc0\x0c"), want: formerr},
		{name: "a name that points ahead", message: named("\xc0\x20"), want: formerr},
		{name: "a name that points into the header", message: named("\xc0\x04"), want: formerr, also: []string{refused}},
		{name: "a label of type 01", message: named("\x41a\x00"), want: formerr},
		{name: "a label of type 10", message: named("\x81a\x00"), want: formerr},
		{name: "a name of 256 octets", message: named(strings.Repeat("\x31"+strings.Repeat("a", 49), 5) + "\x04aaaa\x00"), want: formerr},
		{name: "a count of answers without one", message: compose(0, [4]uint16{1, 1}, oddQuestion), want: formerr},
		{name: "a count of records without one", message: compose(0, [4]uint16{1, 0, 0, 1}, oddQuestion), want: formerr},
		{name: "a record that is cut", message: compose(0, [4]uint16{1, 0, 0, 1}, oddQuestion, aRecord[:len(aRecord)-2]), want: formerr},
		{name: "octets behind the question", message: append(question(), "garbage"...), want: formerr},
		{name: "octets behind EDNS", message: append(question(emptyOPT), "garbage"...), want: formerr},
		{name: "two OPT records", message: question(emptyOPT, emptyOPT), want: formerr},
		{name: "an OPT record that has an owner", message: question("\x01a" + emptyOPT), want: formerr},
		{name: "an OPT record among answers", message: compose(0, [4]uint16{1, 1}, oddQuestion, emptyOPT), want: formerr},
		{name: "an OPT record longer than the message", message: question(optRecord + "\x00\x08"), want: formerr},
		{name: "an option longer than its record", message: opt("\x00\x64\x00\x09abcd"), want: formerr},
		{name: "half an option", message: opt("\x00\x64"), want: formerr},
		{name: "a TSIG record of an unknown key", message: question(tsigRecord()), want: "NOTAUTH BADKEY"},
		{name: "a TSIG record of an unknown key behind EDNS", message: question(emptyOPT, tsigRecord()), want: "NOTAUTH BADKEY"},
		{name: "a TSIG record that is not the last", message: question(tsigRecord(), emptyOPT), want: formerr},
		{name: "two TSIG records", message: question(tsigRecord(), tsigRecord()), want: formerr},
		{name: "a TSIG record among answers", message: compose(0, [4]uint16{1, 1}, oddQuestion, tsigRecord()), want: formerr},
		{name: "a TSIG record that is cut", message: question(tsigRecord()[:30]), want: formerr},
		{name: "class CHAOS", message: asks(dns.TypeSOA, dns.ClassCHAOS), want: refused},
		{name: "class HESIOD", message: asks(dns.TypeSOA, dns.ClassHESIOD), want: refused},
		{name: "class NONE", message: asks(dns.TypeSOA, dns.ClassNONE), want: refused, also: []string{formerr}},
		{name: "class 0", message: asks(dns.TypeSOA, 0), want: refused, also: []string{formerr}},
		{name: "a zone that is not served", message: named("\x09elsewhere\x00"), want: refused},
		{name: "the root, which is not served", message: named("\x00"), want: refused},
		{name: "AXFR over UDP", message: asks(dns.TypeAXFR, dns.ClassINET), want: refused, also: []string{formerr}},
		{name: "AXFR over TCP", message: asks(dns.TypeAXFR, dns.ClassINET), want: refused, also: []string{"NOTAUTH"}, tcp: true},
		{name: "IXFR", message: asks(dns.TypeIXFR, dns.ClassINET), want: refused, also: []string{formerr}},
		{name: "opcode IQUERY", message: compose(1<<11, [4]uint16{1}, oddQuestion), want: notimp},
		{name: "opcode STATUS", message: compose(2<<11, [4]uint16{1}, oddQuestion), want: notimp},
		{name: "opcode NOTIFY", message: compose(4<<11, [4]uint16{1}, oddQuestion), want: notimp, alone: "all peers may be secondaries, ours never is"},
		{name: "opcode UPDATE", message: compose(5<<11, [4]uint16{1}, oddQuestion), want: notimp},
		{name: "opcode 3", message: compose(3<<11, [4]uint16{1}, oddQuestion), want: notimp},
	}
	for _, size := range []int{0, 7, 9, 15, 41} {
		list = append(list, odd{name: fmt.Sprintf("a cookie of %d octets", size), message: cookie(size), want: formerr})
	}
	return list
}

// kind is what matters of a reply to an odd message.
func kind(t *testing.T, reply []byte) string {
	t.Helper()
	if reply == nil {
		return "silence"
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("%x: %v", reply, err)
	}
	what := dns.RcodeToString[m.Rcode]
	if sig := m.IsTsig(); sig != nil {
		what += " " + dns.RcodeToString[int(sig.Error)]
	}
	return what
}

// sentinel is the ID of a question that every server answers, sent behind odd messages, whose ID is 0: where its
// answer comes first, there is no reply to the odd one.
const sentinel = 0xffff

// askOdd sends an odd message and returns the reply, nil for silence.
func (s *server) askOdd(t *testing.T, message []byte, tcp bool) []byte {
	t.Helper()
	network := "udp"
	if tcp {
		network = "tcp"
	}
	conn, err := net.Dial(network, s.address.String())
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	read := func() ([]byte, error) {
		reply := make([]byte, 65535)
		n, err := conn.Read(reply)
		return reply[:n], err
	}
	write := conn.Write
	if tcp {
		framed := &dns.Conn{Conn: conn}
		read = func() ([]byte, error) { return framed.ReadMsgHeader(nil) }
		write = framed.Write
	}
	for _, m := range [][]byte{message, compliance{}.message(sentinel)} {
		if _, err := write(m); err != nil {
			return nil // closed by the server
		}
	}
	reply, err := read()
	switch {
	case err != nil && tcp: // closed, or reset for what was not read
		return nil
	case err != nil:
		t.Fatalf("%s is silent to a good question too: %v", s.name, err)
	case len(reply) >= 2 && binary.BigEndian.Uint16(reply) == sentinel:
		return nil
	}
	return reply
}

// TestOddMessages asks ours and all peers what no resolver asks. Ours replies as it should, and as
// at least one of the peers does; and it answers questions as before.
func TestOddMessages(t *testing.T) {
	peersRunning := []*server{startCompliance(t, "NSD"), startCompliance(t, "Knot"), startCompliance(t, "BIND")}
	ours := []*server{startCompliance(t, "ours"), startCompliance(t, "ours with all features")}
	for _, o := range odds() {
		for _, s := range ours {
			got := kind(t, s.askOdd(t, o.message, o.tcp))
			if got != o.want {
				t.Errorf("%s: %s: %s, wanted %s", o.name, s.name, got, o.want)
			}
		}
		var theirs []string
		for _, s := range peersRunning {
			theirs = append(theirs, kind(t, s.askOdd(t, o.message, o.tcp)))
		}
		t.Logf("%s: ours %s, NSD %s, Knot %s, BIND %s", o.name, o.want, theirs[0], theirs[1], theirs[2])
		agrees := slices.ContainsFunc(theirs, func(reply string) bool { return reply == o.want || slices.Contains(o.also, reply) })
		if agrees != (o.alone == "") {
			t.Errorf("%s: ours %s, NSD %s, Knot %s, BIND %s; it was to stand alone: %q", o.name, o.want, theirs[0], theirs[1], theirs[2], o.alone)
		}
	}
	for _, s := range ours {
		if got := kind(t, s.ask(t, compliance{}.message(1), false)); got != "NOERROR" {
			t.Errorf("afterwards: %s", got)
		}
	}
}
