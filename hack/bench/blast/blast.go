//go:build linux

package blast

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what is asked, whom and how fast.
type Options struct {
	Server    netip.AddrPort
	Questions []byte // messages, each with its length before it in two octets; asked in order, over and over
	CPU       int    // that the generator keeps busy; it should have no other work
	Sockets   int    // the questions come from so many ports; 0: 1
	// Sources, unless there are none, are addresses of this machine that questions come from in turn, each with one socket.
	Sources []netip.Addr

	// Window is how many questions may be without an answer at any time; 0: 512, at most 65,536. A new one goes out
	// when an answer comes or when Lost has passed.
	Window int
	// Rate is how many questions are asked in a second, while the window allows; 0: as many as the window allows.
	Rate float64

	Warm   time.Duration // asked before anything is measured
	Length time.Duration // measured
	// Mark, unless nil, is called when measuring begins and when it ends: to read what the server has used by then.
	Mark func()
}

// Lost is how long an answer may take.
const Lost = 400 * time.Millisecond

// Result is what was measured.
type Result struct {
	Elapsed       time.Duration `json:"elapsed"` // Length, or a little more
	Answers       uint64        `json:"answers"`
	Lost          uint64        `json:"lost"` // questions without an answer
	Rcodes        [16]uint64    `json:"rcodes"`
	WithAnswer    uint64        `json:"withAnswer"` // answers with a record in the answer section
	Authoritative uint64        `json:"authoritative"`
	Octets        uint64        `json:"octets"` // of all answers
	Latency       Histogram     `json:"-"`
}

// take counts an answer of this size, of which at least the header is there.
func (r *Result) take(answer []byte, size int) {
	r.Answers++
	r.Octets += uint64(size)
	r.Rcodes[answer[3]&15]++
	r.Authoritative += uint64(answer[2] >> 2 & 1)
	if answer[6]|answer[7] != 0 {
		r.WithAnswer++
	}
}

// Rate returns answers in a second.
func (r *Result) Rate() float64 { return float64(r.Answers) / r.Elapsed.Seconds() }

// perCall is how many messages one system call takes at most.
const perCall = 32

// answerHeader is all of an answer that is looked at.
const answerHeader = 12

// generator is one run.
type generator struct {
	options   Options
	questions []uint32 // where each starts in Options.Questions
	next      int      // the question to ask
	sockets   []int
	to, from  int // the socket to use next

	out, in  *batch
	free     []uint16 // IDs that no question under way has
	asked    []time.Duration
	underway []bool

	began time.Time
	sent  uint64
	r     Result
}

// Run asks for Warm and Length. It takes over the calling goroutine's thread and moves it to the CPU.
func Run(o Options) (*Result, error) {
	if o.Window == 0 {
		o.Window = 512
	}
	if o.Sockets == 0 {
		o.Sockets = 1
	}
	g := &generator{
		options: o, out: newBatch(perCall, 0, false), in: newBatch(perCall, answerHeader, false),
		asked: make([]time.Duration, o.Window), underway: make([]bool, o.Window),
	}
	for at := 0; at < len(o.Questions); {
		g.questions = append(g.questions, uint32(at))
		at += 2 + int(binary.BigEndian.Uint16(o.Questions[at:]))
	}
	for id := range o.Window {
		g.free = append(g.free, uint16(id))
	}
	defer func() {
		for _, s := range g.sockets {
			_ = unix.Close(s)
		}
	}()
	for i := range max(o.Sockets, len(o.Sources)) {
		var source netip.Addr
		if len(o.Sources) > 0 {
			source = o.Sources[i]
		}
		s, err := connect(o.Server, source)
		if err != nil {
			return nil, err
		}
		g.sockets = append(g.sockets, s)
	}
	release, err := pin(o.CPU)
	if err != nil {
		return nil, err
	}
	defer release()
	runtime.GC() // what comes does not allocate
	g.run()
	return &g.r, nil
}

// pin keeps this goroutine on one CPU until release is called.
func pin(cpu int) (release func(), err error) {
	runtime.LockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("using CPU %d: %w", cpu, err)
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &before) // it was allowed before
		runtime.UnlockOSThread()
	}, nil
}

func (g *generator) run() {
	mark := g.options.Mark
	if mark == nil {
		mark = func() {}
	}
	g.began = time.Now()
	start, end := g.options.Warm, g.options.Warm+g.options.Length
	measuring := false
	for swept := time.Duration(0); ; {
		now := time.Since(g.began)
		if !measuring && now >= start {
			measuring = true
			g.r = Result{}
			mark()
			now = time.Since(g.began)
			start, end = now, now+g.options.Length
		}
		if measuring && now >= end {
			break
		}
		g.receive()
		g.send(now)
		if now-swept > Lost/8 {
			swept = now
			g.giveUp(now)
		}
	}
	mark()
	g.r.Elapsed = time.Since(g.began) - start
}

// receive takes answers from one of the sockets that have some.
func (g *generator) receive() {
	for range g.sockets {
		s := g.sockets[g.from]
		g.from = (g.from + 1) % len(g.sockets)
		n, errno := g.in.receive(s, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errno != 0 {
			continue // none are there, or the server is not
		}
		now := time.Since(g.began)
		for i, answer := range g.in.buffers[:n] {
			g.take(answer, g.in.headers[i].size, now)
		}
		return
	}
}

// take notes one answer.
func (g *generator) take(answer []byte, size uint32, now time.Duration) {
	id := binary.BigEndian.Uint16(answer)
	if size < answerHeader || int(id) >= len(g.underway) || !g.underway[id] {
		return // late, or not an answer
	}
	g.underway[id] = false
	g.free = append(g.free, id)
	g.r.take(answer, int(size))
	g.r.Latency.Add(now-g.asked[id], 1)
}

// send asks as many questions at once as one system call takes and window and rate allow.
func (g *generator) send(now time.Duration) {
	n := min(len(g.free), perCall)
	if g.options.Rate > 0 {
		n = min(n, int(now.Seconds()*g.options.Rate-float64(g.sent)))
	}
	if n <= 0 {
		return
	}
	for i := range n {
		at := g.questions[g.next]
		if g.next++; g.next == len(g.questions) {
			g.next = 0
		}
		size := binary.BigEndian.Uint16(g.options.Questions[at:])
		message := g.options.Questions[at+2:][:size]
		id := g.free[len(g.free)-1]
		g.free = g.free[:len(g.free)-1]
		binary.BigEndian.PutUint16(message, id)
		g.out.set(i, message)
		g.asked[id], g.underway[id] = now, true
	}
	sent, errno := g.out.send(g.sockets[g.to], n)
	g.to = (g.to + 1) % len(g.sockets)
	if errno != 0 {
		sent = 0
	}
	g.sent += uint64(sent)
	for _, message := range g.out.buffers[sent:n] {
		id := binary.BigEndian.Uint16(message)
		g.underway[id] = false
		g.free = append(g.free, id)
	}
}

// giveUp frees the IDs of questions that were asked too long ago.
func (g *generator) giveUp(now time.Duration) {
	for id, waiting := range g.underway {
		if waiting && now-g.asked[id] > Lost {
			g.underway[id] = false
			g.free = append(g.free, uint16(id))
			g.r.Lost++
		}
	}
}
