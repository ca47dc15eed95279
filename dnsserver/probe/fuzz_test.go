package probe

import (
	"bytes"
	"io"
	"net/netip"
	"regexp"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"google.golang.org/protobuf/proto"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// ours is all that a Result may say after a target has said anything at all: nothing is quoted but numbers, and names that
// standards have given to numbers.
var ours = regexp.MustCompile(`^(Up|Down: (` +
	`HTTP [0-9]{3}, wanted (200-299|gRPC)|` +
	`the answer is not (HTTP|gRPC|to the question)|` +
	`connection closed before the answer|` +
	`the body (lacks the text|does not match the expression) wanted|` +
	`more than 2 redirects|` +
	`gRPC health(: the target (does not know the service|has no health service)| NOT_SERVING, wanted SERVING| UNKNOWN, wanted SERVING)|` +
	`gRPC status ([A-Z][A-Za-z]+|Code\([0-9]+\)), wanted OK|` +
	`[A-Z0-9]+, wanted NOERROR|` +
	`the answer lacks 10\.0\.0\.1))$`)

// said is a connection on which a target says something and hangs up.
type said struct {
	io.Reader
	io.Writer
}

func inOurWords(t *testing.T, r Result) {
	t.Helper()
	if !ours.MatchString(r.String()) {
		t.Errorf("says %q", r)
	}
}

func FuzzHTTPAnswer(f *testing.F) {
	for _, text := range []string{
		"", "HTTP/1.1 200 OK\r\n\r\nbody", "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n", "SSH-2.0\r\n",
	} {
		f.Add([]byte(text))
	}
	p, err := newHTTP(&steeringpb.Http{Port: 80, Host: "app.pay.bank", BodyContains: "well", BodyMatches: "e.l", FollowRedirects: 2}, anywhere())
	if err != nil {
		f.Fatal(err)
	}
	at := step{port: 80, method: "GET", host: "app.pay.bank", path: "/"}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, method := range []string{"GET", "HEAD"} {
			answer, err := exchange1(said{bytes.NewReader(text), io.Discard}, request{method: method, host: "app.pay.bank", path: "/"}, true)
			if err != nil {
				inOurWords(t, notAnswered(err, "the answer is not HTTP"))
				continue
			}
			if answer.status < 100 || answer.status > 999 || len(answer.body) > maxBody || len(answer.body) > len(text) {
				t.Errorf("status %d, %d octets of %d", answer.status, len(answer.body), len(text))
			}
			inOurWords(t, p.judge(answer))
			if next, ok := redirect(at, answer); ok && (next.port == 0 || next.path == "" || next.path[0] != '/' || !plain(next.path) || !plain(next.host)) {
				t.Errorf("leads to %+v", next)
			}
		}
	})
}

// frames returns what a server says in HTTP/2.
func frames(f func(*http2.Framer, func(...hpack.HeaderField) []byte)) []byte {
	var out, block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	f(http2.NewFramer(&out, nil), func(all ...hpack.HeaderField) []byte {
		block.Reset()
		for _, h := range all {
			_ = fields.WriteField(h)
		}
		return bytes.Clone(block.Bytes())
	})
	return out.Bytes()
}

func FuzzHTTP2Answer(f *testing.F) {
	serving, err := proto.Marshal(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frames(func(w *http2.Framer, fields func(...hpack.HeaderField) []byte) {
		_ = w.WriteSettings()
		_ = w.WriteSettingsAck()
		_ = w.WritePing(false, [8]byte{1})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: fields(hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})})
		_ = w.WriteData(1, false, append([]byte{0, 0, 0, 0, byte(len(serving))}, serving...))
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: fields(hpack.HeaderField{Name: "grpc-status", Value: "0"})})
	}))
	f.Add(frames(func(w *http2.Framer, fields func(...hpack.HeaderField) []byte) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: fields(hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "grpc-status", Value: "5"}, hpack.HeaderField{Name: "grpc-message", Value: "evil words"})})
	}))
	f.Add(frames(func(w *http2.Framer, fields func(...hpack.HeaderField) []byte) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: fields(hpack.HeaderField{Name: ":status", Value: "103"})})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(hpack.HeaderField{Name: ":status", Value: "503"})})
		_ = w.WriteContinuation(1, true, fields(hpack.HeaderField{Name: "server", Value: "evil words"}))
		_ = w.WriteData(1, true, []byte("evil words"))
	}))
	f.Add(frames(func(w *http2.Framer, _ func(...hpack.HeaderField) []byte) {
		_ = w.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("evil words"))
		_ = w.WriteRSTStream(1, http2.ErrCodeRefusedStream)
	}))
	p, err := newHTTP(&steeringpb.Http{Port: 80}, anywhere())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var sent bytes.Buffer
		answer, err := exchange2(said{bytes.NewReader(text), &sent}, request{method: "POST", scheme: "http", host: "a", path: "/", body: []byte("x")}, true)
		if sent.Len() > 1000+10*len(text) {
			t.Errorf("%d octets sent after %d", sent.Len(), len(text))
		}
		if err != nil {
			inOurWords(t, notAnswered(err, "the answer is not gRPC"))
			return
		}
		if answer.status < 200 || answer.status > 999 || len(answer.body) > maxBody || len(answer.body) > len(text) {
			t.Errorf("status %d, %d octets of %d", answer.status, len(answer.body), len(text))
		}
		inOurWords(t, judgeHealth(answer))
		inOurWords(t, p.judge(answer))
	})
}

func FuzzDNSAnswer(f *testing.F) {
	p, err := newDNS(&steeringpb.Dns{Port: 53, Name: "app.pay.bank", Type: "A", Answers: []string{"10.0.0.1"}}, anywhere())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.query)
	for _, text := range []string{"app.pay.bank. 5 A 10.0.0.1", "app.pay.bank. 5 A 10.0.0.2", "app.pay.bank. 5 CNAME evil.words."} {
		r, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{p.asked}, Answer: []dns.RR{r}}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		m, ok := p.parse(reply, p.query)
		if !ok {
			return
		}
		if len(reply) < 12 || reply[2]&0x80 == 0 || [2]byte(reply) != [2]byte(p.query) {
			t.Error("takes what is no reply to the query (RFC 1035 4.1.1)")
		}
		r := p.judge(m)
		inOurWords(t, r)
		if r.Outcome == Up && (reply[3]&0xf != 0 || !bytes.Contains(reply, []byte{10, 0, 0, 1})) {
			t.Error("takes what lacks the answer")
		}
	})
}

func FuzzEcho(f *testing.F) {
	data := []byte("0123456789abcdef")
	m, err := (&icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &icmp.Echo{ID: 7, Data: data}}).Marshal(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	f.Fuzz(func(t *testing.T, message []byte) {
		four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		if isEcho(message, four, four, data) && (message[0] != 0 || !bytes.Equal(message[8:], data)) {
			t.Error("takes what is no answer (RFC 792)")
		}
		if isEcho(message, six, six, data) && (message[0] != 129 || !bytes.Equal(message[8:], data)) {
			t.Error("takes what is no answer (RFC 4443 4.2)")
		}
	})
}
