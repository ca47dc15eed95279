package dnsserver

import (
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver/limit"
)

// defaultUDP is the way to answer over UDP on Linux.
func defaultUDP(workers, addresses int) udpPath { return newUDPBatches(workers, addresses) }

// maxSockets bounds the sockets of all addresses together, as long as each has one.
const maxSockets = 1024

// udpBatches answers with system calls that take many datagrams at once. Each worker has a thread
// of its own and at most one socket of every address, so that a long list of addresses costs
// neither threads nor memory, and a busy address does not keep another from the CPUs.
type udpBatches struct {
	count   int // of workers
	sockets int // of each address
	bound   [][]int
	drained int // event that tells all workers to drain, 0 before the first bind
}

func newUDPBatches(workers, addresses int) *udpBatches {
	return &udpBatches{count: workers, sockets: min(workers, max(1, maxSockets/max(1, addresses)))}
}

func (p *udpBatches) bind(address netip.AddrPort) error {
	if p.drained == 0 {
		event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return os.NewSyscallError("eventfd", err)
		}
		p.drained = event
	}
	p.bound = append(p.bound, nil)
	for range p.sockets {
		fd, err := openUDP(address)
		if err != nil {
			return err
		}
		p.bound[len(p.bound)-1] = append(p.bound[len(p.bound)-1], fd)
	}
	return nil
}

func (p *udpBatches) workers(newResponder func() *responder) []udpWorker {
	all := make([]*batchWorker, p.count)
	for i := range all {
		all[i] = &batchWorker{
			responder: newResponder(), drained: p.drained,
			polled: []unix.PollFd{{Fd: int32(p.drained), Events: unix.POLLIN}},
		}
		all[i].responder.before.Client = all[i].client
	}
	next := 0 // goes on with each address, so that all workers have about as many sockets
	var busy []udpWorker
	for _, fds := range p.bound {
		for _, fd := range fds {
			w := all[next%len(all)]
			if next++; len(w.polled) == 1 {
				busy = append(busy, w)
			}
			w.polled = append(w.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			w.full = append(w.full, notFull)
		}
	}
	return busy
}

func (p *udpBatches) close() {
	for _, fds := range p.bound {
		for _, fd := range fds {
			_ = unix.Close(fd) // nobody can do anything about it
		}
	}
	if p.drained != 0 {
		_ = unix.Close(p.drained)
	}
	p.bound, p.drained = nil, 0
}

// batchWorker answers what comes to some sockets.
type batchWorker struct {
	responder *responder
	drained   int           // readable once until is set
	polled    []unix.PollFd // the event, then each socket; Revents is not 0 while there may be something
	full      []limit.Time  // of each socket, since when it has had a whole batch each time; or notFull
	batch     *batch
	room      int      // for a reply in batch, in octets
	received  [][]byte // the queries of the batch
	at        int      // index of the datagram that is being answered

	until atomic.Pointer[time.Time]
}

// A socket that has had more than a batch for so long gets more than the worker can answer.
const (
	overloadAfter = limit.Time(20 * time.Millisecond)
	notFull       = limit.Time(-1)
)

func (w *batchWorker) drain(until time.Time) {
	w.until.Store(&until)
	_, _ = unix.Write(w.drained, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // can't fail: the counter is far from its end
}

// overtime is for how long a worker still answers what its sockets hold when the time to drain has
// passed: on a machine with much to do the worker may not have had a CPU before.
const overtime = time.Second

// lookAround is after how many rounds a busy worker asks which of its other sockets have something.
const lookAround = 4

func (w *batchWorker) serve() error {
	// One thread, so that what the kernel and the caches of a CPU know about it stays true.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sockets := w.polled[1:]
	for round := 1; ; round++ {
		idle := true
		for i := range sockets {
			s := &sockets[i]
			if s.Revents == 0 {
				continue
			}
			w.fit()
			n, err := w.batch.receive(int(s.Fd))
			switch {
			case unusable(err):
				return os.NewSyscallError("recvmmsg", err)
			case err != nil:
				w.responder.counts.failures.Add(1)
				fallthrough
			case n == 0:
				s.Revents = 0
				w.load(i, 0)
				continue
			}
			idle = false
			w.answer()
			if failed := w.batch.send(int(s.Fd)); failed > 0 {
				w.responder.counts.failures.Add(uint64(failed))
			}
			w.load(i, n)
		}
		until := w.until.Load()
		if until != nil && !time.Now().Before(*until) && (idle || !time.Now().Before(until.Add(overtime))) {
			return nil
		}
		if idle || len(sockets) > 1 && round%lookAround == 0 {
			if err := w.look(idle, until); err != nil {
				return err
			}
		}
	}
}

// load takes how many datagrams the i-th socket had.
func (w *batchWorker) load(i, datagrams int) {
	switch now := w.responder.now; {
	case datagrams < batchSize:
		w.full[i] = notFull
	case w.full[i] == notFull:
		w.full[i] = now
	case now-w.full[i] >= overloadAfter:
		w.responder.overloaded()
	}
}

// client returns where the i-th datagram of the batch came from.
func (w *batchWorker) client(i int) netip.Addr { return w.batch.client(i) }

// fit makes the next batch one for replies as long as they may be by now.
func (w *batchWorker) fit() {
	if room := w.responder.settings.Load().replyRoom(); room != w.room {
		w.room, w.batch = room, newBatch(room)
	}
}

// look finds which sockets have something. If wait, it returns when one has, or when a time to
// drain comes or has passed.
func (w *batchWorker) look(wait bool, until *time.Time) error {
	timeout := 0
	switch {
	case wait && until != nil:
		w.polled[0].Fd = -1 // the event has been seen
		timeout = int(max(0, time.Until(*until)).Milliseconds()) + 1
	case wait:
		timeout = -1
	}
	if _, err := unix.Poll(w.polled, timeout); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// answer makes the replies to all datagrams of the batch.
func (w *batchWorker) answer() {
	w.responder.begin(time.Now())
	w.received = w.received[:0]
	for i := range w.batch.received {
		w.received = append(w.received, datagram(w.batch.datagram(i)))
	}
	w.responder.ahead(w.received)
	for w.at = 0; w.at < w.batch.received; {
		w.answerOn()
	}
	w.responder.count()
}

// answerOn answers from w.at on, to the end or up to a datagram that causes a panic: a recovery
// for each would cost every query something.
func (w *batchWorker) answerOn() {
	defer func() {
		if cause := recover(); cause != nil {
			received := w.batch.datagram(w.at)
			w.reply(w.responder.failed(cause, received[:0], datagram(received), w.batch.client(w.at)))
		}
	}()
	for w.at < w.batch.received {
		if w.responder.watched != nil {
			w.responder.watched.port = w.batch.port(w.at)
		}
		received := w.batch.datagram(w.at)
		w.reply(w.responder.answerOne(received[:0], datagram(received), w.batch.client(w.at)))
	}
}

// reply has r, which stands in the memory of the present datagram or is nil, sent and goes on
// with the next datagram.
func (w *batchWorker) reply(r []byte) {
	if r != nil {
		w.batch.reply(w.at, len(r))
	}
	w.at++
}
