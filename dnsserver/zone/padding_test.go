package zone

import (
	"testing"

	"github.com/miekg/dns"
)

// TestPadding holds replies to RFC 7830 and to the block length of RFC 8467 §4.1.
func TestPadding(t *testing.T) {
	v, s := viewOf(bigZone(t)), &Scratch{}
	for sentence, tc := range map[string]struct {
		question string // without +tcp
		over     Transport
		plain    bool // the client does not pad
		signed   bool
		want     bool // octets a multiple of 468
	}{
		"over TLS a client that pads gets padding":      {question: "ns.example.test. A +edns=1232", over: TLS, want: true},
		"what is longer than a block is padded as well": {question: "forty.example.test. A +edns=1232", over: TLS, want: true},
		"so is a long answer":                           {question: "many.example.test. A +edns=1232", over: TLS, want: true},
		"so is a denial":                                {question: "nope.example.test. A +edns=1232", over: TLS, want: true},
		"so is a refusal":                               {question: "elsewhere. A +edns=1232", over: TLS, want: true},
		"so is what follows the OPT record":             {question: "ns.example.test. A +edns=1232", over: TLS, signed: true, want: true},
		"over TLS a client that does not pad gets none": {question: "ns.example.test. A +edns=1232", over: TLS, plain: true},
		"over TCP nobody gets any":                      {question: "ns.example.test. A +edns=1232", over: TCP},
		"over UDP nobody gets any":                      {question: "ns.example.test. A +edns=1232", over: UDP},
	} {
		t.Run(sentence, func(t *testing.T) {
			line, _ := question(t, tc.question)
			var m dns.Msg
			if err := m.Unpack(line); err != nil {
				t.Fatal(err)
			}
			if !tc.plain {
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 5)}}
			}
			message, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if tc.signed {
				message = append(message, signed(classANY, tsigRData)...)
				message[11]++
			}
			reply := ask(v, s, message, tc.over)
			if err := m.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			padded := false
			for _, option := range m.IsEdns0().Option {
				padded = padded || option.Option() == dns.EDNS0PADDING
			}
			if padded != tc.want || tc.want != (len(reply)%paddedBlock == 0) {
				t.Errorf("%d octets, padded %t", len(reply), padded)
			}
		})
	}
	message, _ := question(t, "names.example.test. MX +edns=1232")
	message = append(message[:len(message)-2], 0, 4, 0, optionPadding, 0, 0)
	whole := len(ask(v, s, message, TCP))
	for room := whole - 1; room < whole+paddedBlock; room++ {
		reply := v.Answer(s, make([]byte, 0, room), message, client, TLS)
		var m dns.Msg
		if err := m.Unpack(reply); err != nil {
			t.Fatal(err)
		}
		if m.Truncated != (room < whole) || !m.Truncated && len(reply) < min(room, whole+4)-4 {
			t.Fatalf("with room for %d octets, %d more than needed: %d, truncated %t", room, room-whole, len(reply), m.Truncated)
		}
	}
}
