//go:build linux

package blast

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// streamEcho sends messages back as answers until the test ends, and closes a connection after so many, 0 for never.
func streamEcho(t *testing.T, config *tls.Config, closeAfter int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for n := 0; closeAfter == 0 || n < closeAfter; n++ {
					message := make([]byte, 2)
					if _, err := io.ReadFull(conn, message); err != nil {
						return
					}
					message = append(message, make([]byte, binary.BigEndian.Uint16(message))...)
					if _, err := io.ReadFull(conn, message[2:]); err != nil {
						return
					}
					message[4] |= 0x80
					if _, err := conn.Write(message); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l
}

func TestConnectionsAreAskedInWindows(t *testing.T) {
	https := httptest.NewTLSServer(nil) // for its certificate
	defer https.Close()
	for name, c := range map[string]struct {
		tls        *tls.Config
		windows    int
		closeAfter int
		lost       bool
	}{
		"over TCP":                           {},
		"over TLS":                           {tls: &tls.Config{Certificates: https.TLS.Certificates}},
		"one connection for each window":     {windows: 1},
		"a server that closes connections":   {closeAfter: 10, lost: true},
		"a server that closes after windows": {closeAfter: 8},
	} {
		t.Run(name, func(t *testing.T) {
			marks := 0
			l := streamEcho(t, c.tls, c.closeAfter)
			r, err := Stream(StreamOptions{
				Server: l.Addr().(*net.TCPAddr).AddrPort(), TLS: c.tls != nil, Questions: workload.Zones{workload.NewZone(100)}.Questions(1000, workload.Usual, nil),
				Connections: 5, Window: 4, Windows: c.windows, Warm: 100 * time.Millisecond, Length: 200 * time.Millisecond, Mark: func() { marks++ },
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Answers == 0 || r.Rcodes[0] != r.Answers || r.Octets < r.Answers*answerHeader || r.Latency.Quantile(0.5) <= 0 {
				t.Errorf("%d answers, %v, %d octets", r.Answers, r.Rcodes, r.Octets)
			}
			if (r.Lost > 0) && !c.lost && c.closeAfter == 0 || r.Lost == 0 && c.lost {
				t.Errorf("%d of %d lost", r.Lost, r.Lost+r.Answers)
			}
			if marks != 2 || r.Elapsed < 200*time.Millisecond {
				t.Errorf("%d marks, %s measured", marks, r.Elapsed)
			}
		})
	}
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	questions := workload.Zones{workload.NewZone(100)}.Questions(10, workload.Usual, nil)
	if _, err := Stream(StreamOptions{Server: address, Questions: questions, Connections: 2, Window: 1, Length: 50 * time.Millisecond}); err == nil {
		t.Error("nobody listens there")
	}
}
