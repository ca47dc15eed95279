package dnsserver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMain lets tests start this binary as clients that mean harm: they and the server together
// would need more files than a process may open, and their memory is not to count.
func TestMain(m *testing.M) {
	if kind := os.Getenv(attackKind); kind != "" {
		if err := attacks[kind](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// attackKind names the variable that says what the process is to do.
const attackKind = "FINGERPOST_TEST_ATTACK"

// Kinds of attacks. Each tells when it is under way and goes on until the end of standard input.
const (
	holdTCP = "idle connections over TCP"
	holdDoT = "idle connections over TLS"
	holdDoH = "idle connections of HTTP/2"
)

var attacks = map[string]func(args []string) error{
	holdTCP: func(args []string) error { return hold(args, nil, askFramed) },
	holdDoT: func(args []string) error { return hold(args, clientTLS("dot"), askFramed) },
	holdDoH: func(args []string) error { return hold(args, clientTLS("h2"), askHTTP2) },

	"connections that are closed at once": func(args []string) error {
		return assault(args, func(client, server *net.TCPAddr, begun func()) error {
			conn, err := dialToReset(client, server)
			if err != nil {
				return err
			}
			begun()
			return conn.Close()
		})
	},
	"connections without a handshake": func(args []string) error { return assault(args, rawThenWait(nil)) },
	"half a handshake": func(args []string) error {
		return assault(args, rawThenWait([]byte{22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3, 1, 2, 3}))
	},
	"handshakes without end": func(args []string) error {
		return assault(args, overTLS("dot", func(_ *tls.Conn, begun func()) error { begun(); return nil }))
	},
	"octets of no meaning": func(args []string) error {
		return assault(args, func(client, server *net.TCPAddr, begun func()) error {
			b := make([]byte, 1+rand.IntN(4000))
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			return rawThenWait(b)(client, server, begun)
		})
	},
	"half a query over TLS": func(args []string) error {
		return assault(args, overTLS("dot", sendThenWait([]byte{0, 200, 1, 2, 3})))
	},
	"queries over TLS whose answers are not read": func(args []string) error {
		m, err := query("big.example.test.").Pack()
		if err != nil {
			return err
		}
		m = append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
		return assault(args, overTLS("dot", sendForEver(nil, bytes.Repeat(m, 100))))
	},
	"half a header": func(args []string) error {
		return assault(args, overTLS("http/1.1", sendThenWait([]byte("GET /resolve HTTP/1.1\r\nHost: "))))
	},
	"half a header in clear text": func(args []string) error {
		return assault(args, rawThenWait([]byte("GET /resolve HTTP/1.1\r\nHost: ")))
	},
	"half a body": func(args []string) error {
		return assault(args, overTLS("http/1.1", sendThenWait([]byte("POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: 500\r\n\r\nabc"))))
	},
	"half a body in each of many streams": func(args []string) error {
		return assault(args, overTLS("h2", sendThenWait(append(bytes.Clone(startHTTP2), streamsHTTP2(100, 0, requestHTTP2("POST", pathDoH))...))))
	},
	"requests whose answers are not read": func(args []string) error {
		ask := []byte("GET " + pathBig + " HTTP/1.1\r\nHost: x\r\n\r\n")
		return assault(args, overTLS("http/1.1", sendForEver(nil, bytes.Repeat(ask, 100))))
	},
	"streams whose answers are not read": func(args []string) error {
		first := append(bytes.Clone(startHTTP2), streamsHTTP2(100, flagEndStream, requestHTTP2("GET", pathBig))...)
		return assault(args, overTLS("h2", sendForEver(first, appendFrame(nil, framePing, 0, 0, make([]byte, 8)))))
	},
	"streams that are reset at once": func(args []string) error {
		return assault(args, overTLS("h2", func(conn *tls.Conn, begun func()) error {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			if _, err := conn.Write(startHTTP2); err != nil {
				return err
			}
			request := requestHTTP2("GET", pathWWW)
			for stream := uint32(1); ; {
				var b []byte
				for range 100 {
					b = appendFrame(b, frameHeaders, flagEndStream|flagEndHeaders, stream, request)
					b = appendFrame(b, frameReset, 0, stream, []byte{0, 0, 0, 8})
					stream += 2
				}
				if _, err := conn.Write(b); err != nil {
					return err
				}
				begun()
			}
		}))
	},
	"a header without end": func(args []string) error {
		first := appendFrame(bytes.Clone(startHTTP2), frameHeaders, 0, 1, requestHTTP2("GET", pathWWW))
		more := appendFrame(nil, frameContinuation, 0, 1, bytes.Repeat(appendField(nil, "x", strings.Repeat("a", 100)), 100))
		return assault(args, overTLS("h2", func(conn *tls.Conn, begun func()) error {
			begun()
			return sendForEver(first, more)(conn, begun)
		}))
	},
	"pings whose answers are not read": func(args []string) error {
		return assault(args, overTLS("h2", sendForEver(startHTTP2, bytes.Repeat(appendFrame(nil, framePing, 0, 0, make([]byte, 8)), 1000))))
	},
}

// rawThenWait sends something in clear text and waits for the end of the connection.
func rawThenWait(what []byte) func(client, server *net.TCPAddr, begun func()) error {
	return func(client, server *net.TCPAddr, begun func()) error {
		conn, err := dialToReset(client, server)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(what); err != nil {
			return err
		}
		begun()
		_, err = io.Copy(io.Discard, conn)
		return err
	}
}

// attack starts clients from so many addresses, which do what their kind is so many times each.
// It returns when the attack is under way; end ends it.
func attack(t *testing.T, kind string, server netip.AddrPort, clients, each int) (end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], server.String(), strconv.Itoa(clients), strconv.Itoa(each))
	cmd.Env = append(os.Environ(), attackKind+"="+kind, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s: there are not %d of them: %q %v", kind, clients*each, line, err)
	}
	return func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// untilTold says that the attack is under way and returns when it is to end.
func untilTold() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// parseAttack returns the server and from how many addresses to do something how many times.
func parseAttack(args []string) (server netip.AddrPort, clients, each int, err error) {
	if server, err = netip.ParseAddrPort(args[0]); err != nil {
		return server, 0, 0, err
	}
	if clients, err = strconv.Atoi(args[1]); err != nil {
		return server, 0, 0, err
	}
	each, err = strconv.Atoi(args[2])
	return server, clients, each, err
}

// from is the address of a client.
func from(client int) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 77, byte(client>>8), byte(1+client))}
}

// hold opens connections, asks and is answered on each, and keeps them.
func hold(args []string, config *tls.Config, ask func(net.Conn) error) error {
	server, clients, each, err := parseAttack(args)
	if err != nil {
		return err
	}
	var conns []net.Conn
	for range each {
		for c := range clients {
			var conn net.Conn
			if conn, err = net.DialTCP("tcp", from(c), net.TCPAddrFromAddrPort(server)); err != nil {
				return err
			}
			if config != nil {
				conn = tls.Client(conn, config)
			}
			conns = append(conns, conn)
			if err := ask(conn); err != nil {
				return fmt.Errorf("connection %d: %w", len(conns), err)
			}
		}
	}
	if err := untilTold(); err != nil {
		return err
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	return nil
}

// askFramed asks over TCP or TLS.
func askFramed(conn net.Conn) error {
	question, err := query("www.example.test.").Pack()
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, binary.BigEndian.Uint16(size[:])))
	return err
}

// Frames of HTTP/2 (RFC 9113 §6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameContinuation = 0, 1, 3, 4, 6, 7, 9

	flagEndStream, flagEndHeaders = 1, 4
)

const prefaceHTTP2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload))<<8|uint32(kind))
	b = binary.BigEndian.AppendUint32(append(b, flags), stream)
	return append(b, payload...)
}

// appendField appends a header field as HPACK has it: literal, without index and Huffman code
// (RFC 7541 §6.2.2).
func appendField(b []byte, name, value string) []byte {
	b = append(append(append(b, 0), byte(len(name))), name...)
	return append(append(b, byte(len(value))), value...)
}

// requestHTTP2 is the header of a question.
func requestHTTP2(method, path string) []byte {
	b := appendField(nil, ":method", method)
	b = appendField(b, ":scheme", "https")
	b = appendField(b, ":authority", "x")
	b = appendField(b, ":path", path)
	if method == "POST" {
		b = appendField(b, "content-type", typeMessage)
	}
	return b
}

const pathBig, pathWWW = "/resolve?name=big.example.test", "/resolve?name=www.example.test"

// readFrame returns one frame.
func readFrame(r io.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
	var head [9]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(r, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload, err
}

// askHTTP2 starts HTTP/2 and asks once.
func askHTTP2(conn net.Conn) error {
	out := appendFrame([]byte(prefaceHTTP2), frameSettings, 0, 0, nil)
	out = appendFrame(out, frameHeaders, flagEndStream|flagEndHeaders, 1, requestHTTP2("GET", pathWWW))
	if _, err := conn.Write(out); err != nil {
		return err
	}
	return readEnd(conn, 1)
}

// readEnd reads up to the end of a stream.
func readEnd(r io.Reader, stream uint32) error {
	for {
		kind, flags, of, payload, err := readFrame(r)
		switch {
		case err != nil:
			return err
		case kind == frameGoAway || kind == frameReset && of == stream:
			return fmt.Errorf("it is not answered: frame %d, %x", kind, payload)
		case of == stream && (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0:
			return nil
		}
	}
}

// memoryInUse is what the heap and stacks of this process take, in octets.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// assault lets so many clients do the same again and again, each so many times at once.
func assault(args []string, do func(client *net.TCPAddr, server *net.TCPAddr, begun func()) error) error {
	server, clients, each, err := parseAttack(args)
	if err != nil {
		return err
	}
	var begun sync.WaitGroup
	for c := range clients {
		for range each {
			begun.Add(1)
			once := sync.OnceFunc(begun.Done)
			go func() {
				for {
					// The server may well refuse or end what is done here.
					_ = do(from(c), net.TCPAddrFromAddrPort(server), once)
				}
			}()
		}
	}
	begun.Wait()
	return untilTold()
}

// dialToReset connects; the end of the connection leaves nothing behind in the kernel.
func dialToReset(client, server *net.TCPAddr) (*net.TCPConn, error) {
	conn, err := net.DialTCP("tcp", client, server)
	if err != nil {
		return nil, err
	}
	err = conn.SetLinger(0)
	return conn, err
}

// overTLS does something with a connection under TLS.
func overTLS(protocol string, do func(conn *tls.Conn, begun func()) error) func(client, server *net.TCPAddr, begun func()) error {
	return func(client, server *net.TCPAddr, begun func()) error {
		raw, err := dialToReset(client, server)
		if err != nil {
			return err
		}
		defer raw.Close()
		conn := tls.Client(raw, clientTLS(protocol))
		if err := conn.Handshake(); err != nil {
			return err
		}
		return do(conn, begun)
	}
}

// sendThenWait sends something and waits for the end of the connection.
func sendThenWait(what []byte) func(conn *tls.Conn, begun func()) error {
	return func(conn *tls.Conn, begun func()) error {
		if _, err := conn.Write(what); err != nil {
			return err
		}
		begun()
		_, err := io.Copy(io.Discard, conn)
		return err
	}
}

// sendForEver sends something again and again and reads nothing.
func sendForEver(first, again []byte) func(conn *tls.Conn, begun func()) error {
	return func(conn *tls.Conn, begun func()) error {
		if _, err := conn.Write(first); err != nil {
			return err
		}
		for i := 0; ; i++ {
			if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			_, err := conn.Write(again)
			if i > 10 || err != nil {
				begun()
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			if err != nil {
				select {} // it is the server's turn to end this
			}
		}
	}
}

// streamsHTTP2 makes a header frame for each of so many streams.
func streamsHTTP2(count int, flags byte, fields []byte) []byte {
	var b []byte
	for i := range count {
		b = appendFrame(b, frameHeaders, flags|flagEndHeaders, uint32(1+2*i), fields)
	}
	return b
}

var startHTTP2 = appendFrame([]byte(prefaceHTTP2), frameSettings, 0, 0, nil)

// TestAttacks: whatever some clients do, others are served over every transport, nothing is left of
// it in memory, and connections that are not used as they should end.
func TestAttacks(t *testing.T) {
	for _, tc := range []struct {
		kind          string
		over          transport
		clients, each int
	}{
		{"connections that are closed at once", overTCP, 4, 10},
		{"connections without a handshake", overDoT, 4, 50},
		{"half a handshake", overDoH, 4, 50},
		{"handshakes without end", overDoT, 4, 10},
		{"octets of no meaning", overDoT, 2, 10},
		{"octets of no meaning", overHTTPDNS, 2, 10},
		{"half a query over TLS", overDoT, 4, 50},
		{"queries over TLS whose answers are not read", overDoT, 4, 10},
		{"half a header", overDoH, 4, 50},
		{"half a header in clear text", overHTTPDNS, 4, 50},
		{"half a body", overDoH, 4, 50},
		{"half a body in each of many streams", overDoH, 4, 10},
		{"requests whose answers are not read", overDoH, 4, 10},
		{"streams whose answers are not read", overDoH, 4, 5},
		{"streams that are reset at once", overDoH, 2, 2},
		{"a header without end", overDoH, 2, 5},
		{"pings whose answers are not read", overDoH, 2, 5},
	} {
		t.Run(tc.kind+" at "+tc.over.title(), func(t *testing.T) {
			s := everyTransport(t, Options{
				MaxConnections: 300, MaxClientConnections: 100, Drain: time.Millisecond,
			})
			others(t, s)
			before := memoryInUse()
			end := attack(t, tc.kind, addressOf(t, s, tc.over), tc.clients, tc.each)
			others(t, s)
			during := memoryInUse()
			end()
			for s.streams.count() > 0 {
				if t.Context().Err() != nil {
					t.Fatalf("%d connections stay open", s.streams.count())
				}
				runtime.Gosched()
			}
			busy := func() bool {
				turns := &s.streams.turns
				turns.mu.Lock()
				defer turns.mu.Unlock()
				return turns.taken > 0 || len(turns.clients) > 0 || s.streams.asked.Load()+s.streams.long.Load() > 0 || s.streams.unsent.Load() > 0
			}
			for busy() {
				if t.Context().Err() != nil {
					t.Fatal("something stays under way")
				}
				runtime.Gosched()
			}
			const mib = 1 << 20
			after := memoryInUse()
			for end := time.Now().Add(30 * time.Second); after-before > 24*mib && time.Now().Before(end); after = memoryInUse() {
				runtime.Gosched() // what connections have held goes with their last goroutines
			}
			if during-before > 150*mib || after-before > 24*mib {
				t.Errorf("memory is %d MiB before, %d MiB during the attack, %d MiB after", before/mib, during/mib, after/mib)
			}
			if n := s.answering.panics.count.Load(); n > 0 {
				t.Errorf("%d panics", n)
			}
		})
	}
}

// TestUnusedConnectionsEnd: clients that do not get on with TLS or HTTP are closed in time.
func TestUnusedConnectionsEnd(t *testing.T) {
	s := everyTransport(t, Options{IdleTimeout: 300 * time.Millisecond, HandshakeTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond})
	const post = "POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: 500\r\n\r\nabc"
	for sentence, tc := range map[string]struct {
		over     transport
		protocol string // "" for clear text
		send     string
	}{
		"nothing, where TLS is wanted":       {overDoT, "", ""},
		"half a handshake":                   {overDoT, "", "\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03"},
		"nothing, where HTTPS is wanted":     {overDoH, "", ""},
		"nothing under TLS":                  {overDoT, "dot", ""},
		"half a query":                       {overDoT, "dot", "\x00\xff\x01\x02"},
		"less than a header":                 {overDoT, "dot", "\x00\x05\x01\x02\x03\x04\x05"},
		"nothing, where HTTP is wanted":      {overHTTPDNS, "", ""},
		"half a header":                      {overHTTPDNS, "", "GET /resolve?name="},
		"a request and then nothing":         {overHTTPDNS, "", "GET /resolve?name=www.example.test HTTP/1.1\r\nHost: x\r\n\r\n"},
		"nothing, where HTTP/1.1 was agreed": {overDoH, "http/1.1", ""},
		"half a body":                        {overDoH, "http/1.1", post},
		"nothing in HTTP/2":                  {overDoH, "h2", string(startHTTP2)},
		"half a frame":                       {overDoH, "h2", string(startHTTP2) + "\x00\x01\x00\x01"},
		"half a body in HTTP/2":              {overDoH, "h2", string(startHTTP2) + string(streamsHTTP2(1, 0, requestHTTP2("POST", pathDoH)))},
		"half a header in HTTP/2":            {overDoH, "h2", string(appendFrame(bytes.Clone(startHTTP2), frameHeaders, 0, 1, requestHTTP2("GET", pathWWW)))},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			var conn net.Conn
			conn, err := net.Dial("tcp", addressOf(t, s, tc.over).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if tc.protocol != "" {
				conn = tls.Client(conn, clientTLS(tc.protocol))
			}
			if _, err := io.WriteString(conn, tc.send); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection goes on")
			}
		})
	}
}

// others asks over every transport, with a new connection for each question.
func others(t *testing.T, s *Server) {
	t.Helper()
	start := time.Now()
	for range 3 {
		for _, network := range []string{"udp", "tcp"} {
			exchangeWith(t, network, s.Addresses()[0], query("www.example.test."))
		}
		conn := dialDoT(t, s, "")
		if err := askFramed(conn); err != nil {
			t.Errorf("over TLS: %v", err)
		}
		_ = conn.Close()
		for _, version2 := range []bool{false, true} {
			web := webClient(t, version2)
			for _, at := range []string{"https://" + addressOf(t, s, overDoH).String(), "http://" + addressOf(t, s, overHTTPDNS).String()} {
				if status, body := get(t, web, at+pathWWW); status != http.StatusOK {
					t.Errorf("over HTTP: %d %s", status, body)
				}
			}
			web.CloseIdleConnections()
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("21 questions of others took %v", took)
	}
}

// TestManyIdleConnectionsUnderTLS: 10,000 would take less than 300 MiB.
func TestManyIdleConnectionsUnderTLS(t *testing.T) {
	const clients, each = 10, 100
	for kind, over := range map[string]transport{holdDoT: overDoT, holdDoH: overDoH} {
		t.Run(kind, func(t *testing.T) {
			s := everyTransport(t, Options{IdleTimeout: time.Hour, MaxConnections: clients*each + 50, MaxClientConnections: each, Drain: time.Millisecond})
			others(t, s)
			before := memoryInUse()
			end := attack(t, kind, addressOf(t, s, over), clients, each)
			during := memoryInUse()
			if n := s.streams.counts()[over]; n != clients*each {
				t.Errorf("%d connections are open", n)
			}
			others(t, s)
			end()
			for s.streams.counts()[over] > 0 {
				if t.Context().Err() != nil {
					t.Fatalf("%d connections stay open", s.streams.count())
				}
				runtime.Gosched()
			}
			after := memoryInUse()
			const kib = 1 << 10
			most := int64(32 << 10)
			if raceDetector {
				most *= 2
			}
			t.Logf("%d KiB for each connection", (during-before)/clients/each/kib)
			if (during-before)/clients/each > most || after-before > 8<<20 {
				t.Errorf("memory is %d KiB before, %d KiB with %d connections, %d KiB after", before/kib, during/kib, clients*each, after/kib)
			}
		})
	}
}

// TestRequestsAreLimited: when very many are under way, connections make room for others.
func TestRequestsAreLimited(t *testing.T) {
	s := everyTransport(t, Options{})
	idle := []*tls.Conn{dialDoT(t, s, "127.0.0.2"), dialDoT(t, s, "127.0.0.2")}
	for _, conn := range idle {
		if err := askFramed(conn); err != nil {
			t.Fatal(err)
		}
	}
	s.streams.asked.Add(maxAsked)
	defer s.streams.asked.Add(-maxAsked)
	if status, body := get(t, webClient(t, true), "https://"+addressOf(t, s, overDoH).String()+pathWWW); status != http.StatusOK {
		t.Errorf("one more is answered %d %s", status, body)
	}
	if err := askFramed(idle[0]); err == nil {
		t.Error("the client with most connections keeps the one that was idle for longest")
	}
	if err := askFramed(idle[1]); err != nil {
		t.Error("another connection had to go as well")
	}
}

// TestTurnsAreFair: a client with many handshakes delays those of another by one at most.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &turns{max: 1}
		busy, quiet := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		turns.begin(busy)
		var order []netip.Addr
		var all sync.WaitGroup
		start := func(client netip.Addr) {
			all.Go(func() {
				turns.begin(client)
				order = append(order, client) // one at a time
				turns.end()
			})
			synctest.Wait()
		}
		for range 50 {
			start(busy)
		}
		start(quiet)
		start(quiet)
		turns.end()
		all.Wait()
		if at := slices.Index(order, quiet); at != 1 || order[3] != quiet || len(order) != 52 {
			t.Errorf("turns go to %v", order)
		}
		if turns.taken != 0 || len(turns.clients) != 0 || turns.order.Len() != 0 {
			t.Errorf("something is left: %+v", turns)
		}
	})
}

// TestEveryTransportAnswersTheSame: whatever octets come, those over TLS and HTTPS are answered as
// those over TCP.
func TestEveryTransportAnswersTheSame(t *testing.T) {
	s := everyTransport(t, Options{})
	random := rand.New(rand.NewPCG(1, 2))
	var messages [][]byte
	for _, name := range []string{"www.example.test.", "big.example.test.", "nope.example.test.", "elsewhere.test.", "."} {
		whole := packed(t, query(name))
		messages = append(messages, whole)
		for range 60 {
			m := bytes.Clone(whole)
			for range 1 + random.IntN(4) {
				switch random.IntN(3) {
				case 0:
					m[random.IntN(len(m))] = byte(random.Uint32())
				case 1:
					m = m[:max(shortestMessage, random.IntN(len(m)+1))]
				default:
					m = append(m, byte(random.Uint32()))
				}
			}
			messages = append(messages, m)
		}
	}
	end := query("end.example.test.")
	ask := func(conn net.Conn, message []byte) (reply []byte) {
		t.Helper()
		out := append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
		if _, err := conn.Write(append(out, framed(t, end)...)); err != nil {
			t.Fatal(err)
		}
		for {
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte("\x03end\x07example")) {
				return reply
			}
			reply = b
		}
	}
	tcp, dot, web := dialTCP(t, s), dialDoT(t, s, ""), webClient(t, true)
	at := "https://" + addressOf(t, s, overDoH).String() + pathDoH
	silent := 0
	for _, m := range messages {
		want := ask(tcp, m)
		if got := ask(dot, m); !bytes.Equal(got, want) {
			t.Errorf("%x: over TLS %x, over TCP %x", m, got, want)
		}
		resp, err := web.Post(at, typeMessage, bytes.NewReader(m))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		switch {
		case want == nil:
			silent++
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%x: silence over TCP, %s over HTTPS", m, resp.Status)
			}
		case !bytes.Equal(got, want):
			t.Errorf("%x: over HTTPS %x, over TCP %x", m, got, want)
		}
	}
	if silent == 0 || silent == len(messages) {
		t.Errorf("%d of %d messages are owed no reply", silent, len(messages))
	}
}
