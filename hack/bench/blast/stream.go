//go:build linux

package blast

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// StreamOptions say what is asked over connections, whom and how.
type StreamOptions struct {
	Server      netip.AddrPort `json:"server"`
	TLS         bool           `json:"tls"`         // DNS over TLS; any certificate will do
	Questions   []byte         `json:"-"`           // as in Options
	Connections int            `json:"connections"` // at any time
	Window      int            `json:"window"`      // questions of a connection that are asked at once, and answered before the next ones
	Windows     int            `json:"windows"`     // of a connection, which is then closed; 0: any number

	Warm   time.Duration `json:"warm"`   // asked before anything is measured
	Length time.Duration `json:"length"` // measured
	Mark   func()        `json:"-"`      // as in Options
}

// streamPatience is how long a window may take to be answered.
const streamPatience = 5 * time.Second

// Stream asks for Warm and Length. Latency is that of the last answer of a window, and what is not answered is lost.
func Stream(o StreamOptions) (*Result, error) {
	mark := o.Mark
	if mark == nil {
		mark = func() {}
	}
	var measuring, ended atomic.Bool
	var all sync.WaitGroup
	var locked sync.Mutex
	total := &Result{}
	var failed error
	for i := range o.Connections {
		all.Go(func() {
			a := streamAsker{options: o, rest: o.Questions}
			for range i * 97 { // not all the same at once
				a.next()
			}
			own, uncounted := &Result{}, &Result{}
			var err error
			for err == nil && !ended.Load() {
				if measuring.Load() {
					err = a.window(own)
				} else {
					err = a.window(uncounted)
				}
			}
			a.close()
			locked.Lock()
			defer locked.Unlock()
			total.add(own)
			failed = errors.Join(failed, err)
		})
	}
	time.Sleep(o.Warm)
	mark()
	began := time.Now()
	measuring.Store(true)
	time.Sleep(o.Length)
	measuring.Store(false)
	total.Elapsed = time.Since(began)
	mark()
	ended.Store(true)
	all.Wait()
	return total, failed
}

func (r *Result) add(other *Result) {
	r.Answers += other.Answers
	r.Lost += other.Lost
	r.WithAnswer += other.WithAnswer
	r.Authoritative += other.Authoritative
	r.Octets += other.Octets
	for i, n := range other.Rcodes {
		r.Rcodes[i] += n
	}
	r.Latency.merge(&other.Latency)
}

// streamAsker is one connection after the other.
type streamAsker struct {
	options StreamOptions
	rest    []byte // of the questions
	conn    net.Conn
	windows int // that the connection has had
	in      *bufio.Reader
	out     []byte
	answer  []byte
}

// next returns the next question with its length.
func (a *streamAsker) next() []byte {
	if len(a.rest) == 0 {
		a.rest = a.options.Questions
	}
	size := 2 + int(binary.BigEndian.Uint16(a.rest))
	question := a.rest[:size]
	a.rest = a.rest[size:]
	return question
}

// window asks and has answered one window. A connection that the server closes is an error only if that happens at once.
func (a *streamAsker) window(r *Result) error {
	began := time.Now()
	fresh := a.conn == nil
	if fresh {
		if err := a.open(); err != nil {
			return err
		}
	}
	a.out = a.out[:0]
	for range a.options.Window {
		a.out = append(a.out, a.next()...)
	}
	_ = a.conn.SetDeadline(began.Add(streamPatience))
	_, err := a.conn.Write(a.out)
	answered := 0
	for ; err == nil && answered < a.options.Window; answered++ {
		err = a.read(r)
	}
	if err != nil {
		answered = max(answered-1, 0)
		r.Lost += uint64(a.options.Window - answered)
		a.close()
		if fresh && answered == 0 {
			return err
		}
		return nil
	}
	r.Latency.Add(time.Since(began), uint64(answered))
	if a.windows++; a.windows == a.options.Windows {
		a.close()
	}
	return nil
}

func (a *streamAsker) open() error {
	conn, err := net.DialTimeout("tcp", a.options.Server.String(), streamPatience)
	if err != nil {
		return err
	}
	if a.options.Windows > 0 { // ports that wait for the end of old connections would run out
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	if a.options.TLS {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"dot"}})
	}
	a.conn, a.windows, a.in = conn, 0, bufio.NewReaderSize(conn, 1<<16)
	return nil
}

func (a *streamAsker) close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}

func (a *streamAsker) read(r *Result) error {
	var size [2]byte
	if _, err := io.ReadFull(a.in, size[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if cap(a.answer) < n {
		a.answer = make([]byte, n)
	}
	answer := a.answer[:n]
	if _, err := io.ReadFull(a.in, answer); err != nil {
		return err
	}
	if n < answerHeader {
		return errors.New("an answer is shorter than its header")
	}
	r.take(answer, n)
	return nil
}
