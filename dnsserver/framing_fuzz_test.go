package dnsserver

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// FuzzTCP sends any octets over a connection: what comes back is whole messages that are replies,
// no more of them than queries, and then the end; and the next client is served.
func FuzzTCP(f *testing.F) {
	framed := func(ms ...*dns.Msg) (b []byte) {
		for _, m := range ms {
			packed, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(packed))), packed...)
		}
		return b
	}
	good := framed(query("www.example.test."), query("big.example.test."), query("nope.example.test."))
	for _, seed := range [][]byte{good, good[:len(good)-3], append([]byte{0, 0}, good...), append([]byte{255, 255}, good...), {0, 12}, {}} {
		f.Add(seed)
	}
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(f)}, nil)
	quiet := funcr.New(func(string, string) {}, funcr.Options{})
	s := serve(f, Options{View: view, Log: quiet, Workers: 1})
	f.Fuzz(func(t *testing.T, octets []byte) {
		conn := dialTCP(t, s)
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { // what the server does not read any more is not an error
			_, _ = conn.Write(octets)
			_ = conn.CloseWrite()
		}()
		queries := 0
		for rest := octets; len(rest) >= 2 && len(rest) >= 2+int(binary.BigEndian.Uint16(rest)); queries++ {
			rest = rest[2+int(binary.BigEndian.Uint16(rest)):]
		}
		for replies := 0; ; replies++ {
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("after %d replies: %v", replies, err)
				}
				return // the end, or a reset for what was not read
			}
			reply := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, reply); err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("reply %d is cut: %v", replies, err)
				}
				return
			}
			var m dns.Msg
			if err := m.Unpack(reply); err != nil || !m.Response {
				t.Fatalf("reply %d is %x: %v", replies, reply, err)
			}
			if replies >= queries {
				t.Fatalf("%d replies to %d queries", replies+1, queries)
			}
		}
	})
}

// FuzzZoneList reads any text as a list of zones: what comes back has names and paths, or the error says where.
func FuzzZoneList(f *testing.F) {
	for _, seed := range []string{"example.test zone\n", "# all\n\nexample.test. /etc/zone\nb..c zone\n", ". a b c\n", "example.test\n", "a\tb\n", "\x00 \x00"} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "list")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files, err := readZoneList(path)
		if err != nil {
			if !strings.HasPrefix(err.Error(), path+":") {
				t.Errorf("the error says nothing of the file: %v", err)
			}
			return
		}
		for _, file := range files {
			name := strings.ReplaceAll(file.Apex.String(), "=", `\061`) // which ends NAME=FILE's name
			again, err := ParseZoneFile(name + "=" + file.Path)
			if err != nil || again != file {
				t.Errorf("%v is read as %v, %v", file, again, err)
			}
			if !filepath.IsAbs(file.Path) {
				t.Errorf("path %q depends on where the server runs", file.Path)
			}
		}
	})
}
