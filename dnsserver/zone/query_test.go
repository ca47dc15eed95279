package zone

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packet builds messages octet by octet, also such as no library would.
type packet struct {
	flags  uint16
	counts [4]uint16
	body   []byte
}

func (p packet) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x1234)
	b = binary.BigEndian.AppendUint16(b, p.flags)
	for _, c := range p.counts {
		b = binary.BigEndian.AppendUint16(b, c)
	}
	return append(b, p.body...)
}

func rawQuestion(name string, qtype, qclass uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte(name), qtype)
	return binary.BigEndian.AppendUint16(b, qclass)
}

// rawRecord is a record: owner in wire form, the four octets of the TTL as a number.
func rawRecord(owner string, typ, class uint16, ttl uint32, rdata string) string {
	b := binary.BigEndian.AppendUint16([]byte(owner), typ)
	b = binary.BigEndian.AppendUint16(b, class)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rdata)))
	return string(append(b, rdata...))
}

const wireWWW = "\x03www\x07example\x04test\x00"

func opt(rdata string) string               { return rawRecord("\x00", TypeOPT, 4096, 0, rdata) }
func optTTL(ttl uint32) string              { return rawRecord("\x00", TypeOPT, 4096, ttl, "") }
func signed(class uint16, rd string) string { return rawRecord("\x03key\x00", typeTSIG, class, 0, rd) }

const tsigRData = "\x0bhmac-sha256\x00" + "\x00\x00\x65\x53\xf1\x00\x01\x2c" + "\x00\x04MAC4" + "\x12\x34" + "\x00\x00" + "\x00\x00"

func TestQueries(t *testing.T) {
	v := viewOf(served(t, "example.test.", "@ SOA ns.test. hostmaster 1 2 3 4 5\n@ NS ns.test.\nwww A 10.0.0.1\n"))
	ask1 := string(rawQuestion(wireWWW, TypeA, classIN))
	a := rawRecord("\x01x\x00", TypeA, classIN, 0, "\x01\x02\x03\x04")
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 3)
	const answered = "NOERROR aa 1/1/0/0"
	const answeredEDNS = "NOERROR aa edns=1232 1/1/0/1"

	for sentence, tc := range map[string]struct {
		message []byte
		want    string // rcode, flags, counts of all sections
	}{
		"a plain query is answered":                        {packet{0, [4]uint16{1}, []byte(ask1)}.bytes(), answered},
		"less than a header gets silence":                  {packet{0, [4]uint16{1}, []byte(ask1)}.bytes()[:11], "silence"},
		"nothing gets silence":                             {nil, "silence"},
		"a response gets silence":                          {packet{0x8000, [4]uint16{1}, []byte(ask1)}.bytes(), "silence"},
		"a response that is malformed too gets silence":    {packet{0x8000, [4]uint16{9}, nil}.bytes(), "silence"},
		"RD and CD are copied, AD and Z and the rest not":  {packet{0x07ff &^ 0x000f, [4]uint16{1}, []byte(ask1)}.bytes(), "NOERROR aa rd cd 1/1/0/0"},
		"an RCODE in a query means nothing":                {packet{5, [4]uint16{1}, []byte(ask1)}.bytes(), answered},
		"IQUERY is not implemented":                        {packet{1 << 11, [4]uint16{1}, []byte(ask1)}.bytes(), "NOTIMP 0/0/0/0"},
		"NOTIFY is not implemented":                        {packet{4 << 11, [4]uint16{1}, []byte(ask1)}.bytes(), "NOTIMP 0/0/0/0"},
		"UPDATE is not implemented":                        {packet{5 << 11, [4]uint16{1}, []byte(ask1)}.bytes(), "NOTIMP 0/0/0/0"},
		"an unknown opcode is not implemented":             {packet{15<<11 | 0x0100, [4]uint16{1}, []byte(ask1)}.bytes(), "NOTIMP 0/0/0/0"},
		"an opcode with garbage behind it is the same":     {packet{15 << 11, [4]uint16{7, 7, 7, 7}, []byte("garbage")}.bytes(), "NOTIMP 0/0/0/0"},
		"no question is malformed":                         {packet{0, [4]uint16{}, nil}.bytes(), "FORMERR 0/0/0/0"},
		"two questions are malformed":                      {packet{0, [4]uint16{2}, []byte(ask1 + ask1)}.bytes(), "FORMERR 0/0/0/0"},
		"a question that is counted but missing":           {packet{0, [4]uint16{1}, nil}.bytes(), "FORMERR 0/0/0/0"},
		"a question cut in its name":                       {packet{0, [4]uint16{1}, []byte(ask1[:5])}.bytes(), "FORMERR 0/0/0/0"},
		"a question cut in its class":                      {packet{0, [4]uint16{1}, []byte(ask1[:len(ask1)-1])}.bytes(), "FORMERR 0/0/0/0"},
		"a pointer to itself in the question is malformed": {packet{0, [4]uint16{1}, rawQuestion("\xc0\x0c", 1, 1)}.bytes(), "FORMERR 0/0/0/0"},
		"a pointer into the header is malformed":           {packet{0, [4]uint16{1}, rawQuestion("\x03www\xc0\x06", 1, 1)}.bytes(), "FORMERR 0/0/0/0"},
		"a label type from before 2004 is malformed":       {packet{0, [4]uint16{1}, rawQuestion("\x41"+strings.Repeat("a", 65)+"\x00", 1, 1)}.bytes(), "FORMERR 0/0/0/0"},
		"a name of 255 octets is a name":                   {packet{0, [4]uint16{1}, rawQuestion(long+"\x3d"+strings.Repeat("a", 61)+"\x00", 1, 1)}.bytes(), "REFUSED 1/0/0/0"},
		"a name of 256 octets is none":                     {packet{0, [4]uint16{1}, rawQuestion(long+"\x3e"+strings.Repeat("a", 62)+"\x00", 1, 1)}.bytes(), "FORMERR 0/0/0/0"},
		"a name of 127 labels is a name":                   {packet{0, [4]uint16{1}, rawQuestion(strings.Repeat("\x01a", 127)+"\x00", 1, 1)}.bytes(), "REFUSED 1/0/0/0"},
		"a name of 128 labels is none":                     {packet{0, [4]uint16{1}, rawQuestion(strings.Repeat("\x01a", 128)+"\x00", 1, 1)}.bytes(), "FORMERR 0/0/0/0"},
		"classes but IN and ANY are refused":               {packet{0, [4]uint16{1}, rawQuestion(wireWWW, TypeA, 3)}.bytes(), "REFUSED 1/0/0/0"},
		"class 0 is refused":                               {packet{0, [4]uint16{1}, rawQuestion(wireWWW, TypeA, 0)}.bytes(), "REFUSED 1/0/0/0"},
		"class ANY is answered without authority":          {packet{0, [4]uint16{1}, rawQuestion(wireWWW, TypeA, 255)}.bytes(), "NOERROR 1/1/0/0"},
		"a zone transfer is refused":                       {packet{0, [4]uint16{1}, rawQuestion(wireWWW[4:], TypeAXFR, 1)}.bytes(), "REFUSED 1/0/0/0"},
		"type 0 is a type without data":                    {packet{0, [4]uint16{1}, rawQuestion(wireWWW, 0, 1)}.bytes(), "NOERROR aa 1/0/1/0"},

		"one octet behind the message is malformed":          {packet{0, [4]uint16{1}, []byte(ask1 + "\x00")}.bytes(), "FORMERR 1/0/0/0"},
		"an OPT that is not counted is malformed":            {packet{0, [4]uint16{1}, []byte(ask1 + opt(""))}.bytes(), "FORMERR 1/0/0/0"},
		"garbage behind an OPT is malformed":                 {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt("") + "\x00")}.bytes(), "FORMERR 1/0/0/0"},
		"a record that is counted but missing":               {packet{0, [4]uint16{1, 1}, []byte(ask1)}.bytes(), "FORMERR 1/0/0/0"},
		"65535 records that are counted but missing":         {packet{0, [4]uint16{1, 65535, 65535, 65535}, []byte(ask1)}.bytes(), "FORMERR 1/0/0/0"},
		"a record without meaning in the answer is skipped":  {packet{0, [4]uint16{1, 1}, []byte(ask1 + a)}.bytes(), answered},
		"a record without meaning behind an OPT is skipped":  {packet{0, [4]uint16{1, 0, 0, 2}, []byte(ask1 + opt("") + a)}.bytes(), answeredEDNS},
		"a record whose owner is compressed is read":         {packet{0, [4]uint16{1, 1}, []byte(ask1 + rawRecord("\xc0\x0c", 1, 1, 0, "abcd"))}.bytes(), answered},
		"a record whose owner points forward is malformed":   {packet{0, [4]uint16{1, 1}, []byte(ask1 + rawRecord("\xc0\x40", 1, 1, 0, "abcd"))}.bytes(), "FORMERR 1/0/0/0"},
		"a record whose owner points at itself is malformed": {packet{0, [4]uint16{1, 1}, []byte(ask1 + rawRecord("\xc0\x22", 1, 1, 0, "abcd"))}.bytes(), "FORMERR 1/0/0/0"},

		"EDNS is answered with EDNS":                      {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt(""))}.bytes(), answeredEDNS},
		"DO is answered with DO, other flags are not":     {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + optTTL(0x0000ffff))}.bytes(), "NOERROR aa edns=1232 do 1/1/0/1"},
		"the extended RCODE of a query means nothing":     {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + optTTL(0x01000000))}.bytes(), answeredEDNS},
		"a version above 0 is a bad version":              {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + optTTL(0x00010000))}.bytes(), "BADVERS edns=1232 1/0/0/1"},
		"two OPT are malformed":                           {packet{0, [4]uint16{1, 0, 0, 2}, []byte(ask1 + opt("") + opt(""))}.bytes(), "FORMERR 1/0/0/0"},
		"an OPT whose owner is not the root is malformed": {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + rawRecord("\x01a\x00", TypeOPT, 4096, 0, ""))}.bytes(), "FORMERR 1/0/0/0"},
		"an OPT in the answer section is malformed":       {packet{0, [4]uint16{1, 1}, []byte(ask1 + opt(""))}.bytes(), "FORMERR 1/0/0/0"},
		"an OPT in the authority section is malformed":    {packet{0, [4]uint16{1, 0, 1}, []byte(ask1 + opt(""))}.bytes(), "FORMERR 1/0/0/0"},
		"unknown options are ignored":                     {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt("\xff\x00\x00\x02ab\x00\x03\x00\x00"))}.bytes(), answeredEDNS},
		"an option longer than its OPT is malformed":      {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt("\xff\x00\x00\x05ab"))}.bytes(), "FORMERR 1/0/0/0"},
		"half an option header is malformed":              {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt("\xff\x00\x00"))}.bytes(), "FORMERR 1/0/0/0"},
		"an OPT longer than the message is malformed":     {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + opt("abcdefgh")[:12])}.bytes(), "FORMERR 1/0/0/0"},

		"a key that is not known gives NOTAUTH":           {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + signed(classANY, tsigRData))}.bytes(), "NOTAUTH tsig=17 1/0/0/1"},
		"so it does with EDNS":                            {packet{0, [4]uint16{1, 0, 0, 2}, []byte(ask1 + opt("") + signed(classANY, tsigRData))}.bytes(), "NOTAUTH edns=1232 tsig=17 1/0/0/2"},
		"a TSIG before another record is malformed":       {packet{0, [4]uint16{1, 0, 0, 2}, []byte(ask1 + signed(classANY, tsigRData) + opt(""))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG of class IN is malformed":                 {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + signed(classIN, tsigRData))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG in the answer section is malformed":       {packet{0, [4]uint16{1, 1}, []byte(ask1 + signed(classANY, tsigRData))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG cut short is malformed":                   {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + signed(classANY, tsigRData[:len(tsigRData)-1]))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG with something behind its end":            {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + signed(classANY, tsigRData+"x"))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG whose MAC is longer than it is malformed": {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + signed(classANY, strings.Replace(tsigRData, "\x00\x04MAC4", "\xff\xffMAC4", 1)))}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG whose key is a compressed name is read":   {packet{0, [4]uint16{1, 0, 0, 1}, []byte(ask1 + rawRecord("\x01k\xc0\x10", typeTSIG, classANY, 0, tsigRData))}.bytes(), "NOTAUTH tsig=17 1/0/0/1"},
		"a TSIG whose key expands beyond 255 octets":      {packet{0, [4]uint16{1, 0, 0, 1}, append(rawQuestion(long+"\x3d"+strings.Repeat("a", 61)+"\x00", 1, 1), rawRecord("\x01k\xc0\x0c", typeTSIG, classANY, 0, tsigRData)...)}.bytes(), "FORMERR 1/0/0/0"},
		"a TSIG for a zone that is not served is NOTAUTH": {packet{0, [4]uint16{1, 0, 0, 1}, append(rawQuestion("\x00", 1, 1), signed(classANY, tsigRData)...)}.bytes(), "NOTAUTH tsig=17 1/0/0/1"},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := &Scratch{}
			asked := slices.Clone(tc.message)
			reply := ask(v, s, tc.message, UDP)
			if !slices.Equal(asked, tc.message) {
				t.Error("the query was changed")
			}
			if got := summary(t, reply); got != tc.want {
				t.Fatalf("answered %s, wanted %s", got, tc.want)
			}
			if reply == nil {
				return
			}
			if reply[0] != 0x12 || reply[1] != 0x34 || (reply[2]^tc.message[2])&0x78 != 0 {
				t.Errorf("ID or opcode changed: %x", reply[:4])
			}

			// The reply is the same when it is written over the query, as the packet path does.
			var over [MaxUDP]byte
			n := copy(over[:], asked)
			if inPlace := v.Answer(s, over[:], over[:n], client, UDP); !slices.Equal(inPlace, reply) {
				t.Errorf("in place of the query: %x, wanted %x", inPlace, reply)
			}
		})
	}
}

// summary is the first line of present and how many records each section has.
func summary(t testing.TB, reply []byte) string {
	t.Helper()
	if reply == nil {
		return "silence"
	}
	line, _, _ := strings.Cut(present(t, reply), "\n")
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if sig := m.IsTsig(); sig != nil {
		if sig.MACSize != 0 || sig.OrigId != 0x1234 || sig.TimeSigned != 0x6553f100 || sig.Fudge != 300 {
			t.Errorf("TSIG %v does not repeat the query's", sig)
		}
		line += " tsig=" + strconv.Itoa(int(sig.Error))
	}
	var counts []string
	for at := 4; at < 12; at += 2 {
		counts = append(counts, strconv.Itoa(int(binary.BigEndian.Uint16(reply[at:]))))
	}
	return line + " " + strings.Join(counts, "/")
}
