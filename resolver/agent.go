package resolver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/renameio/v2"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/resolver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// Options of an agent.
type Options struct {
	Product engine.Product
	// Folder is the engine's own, where its files are written and its cache and sockets are. It exists.
	Folder engine.Path
	// Listen is where clients ask if the configuration does not say.
	Listen []netip.AddrPort
	// Watch says who the agent is when it listens to servers that tell changes. Its functions and servers are set by the
	// agent; without credentials nobody is listened to.
	Watch changes.WatchOptions
	// Drain is how long the engine goes on answering, unready, before it is stopped, or restarted for a configuration.
	Drain time.Duration
	// Name of the agent, unique in its pool, and Spread, within which it says when an engine that answers is restarted for a
	// configuration: so members that are told the same at once do not empty their caches at once.
	Name   string
	Spread time.Duration
	// Version of the agent's program.
	Version string
	// EngineLog is told what the engine says.
	EngineLog io.Writer
	Log       logr.Logger
}

// Times of the agent.
const (
	probeInterval = 500 * time.Millisecond // between questions for the local name
	probeTimeout  = time.Second            // of each
	// probeAge is how old the last answer to the local name may be. With probeInterval it has a hung engine unready
	// within 3 s.
	probeAge          = 2 * time.Second
	hungAfter         = 15 * time.Second // without an answer an engine is killed
	startTimeout      = 20 * time.Second // until a started engine has to answer
	stopGrace         = 5 * time.Second  // until an engine that was asked to end is killed
	recursionInterval = 10 * time.Second // between recursion checks
	recursionTimeout  = 3 * time.Second  // of each
	vainFor           = 10 * time.Minute // until an engine is restarted again for a configuration that it was in vain for
	filesLook         = time.Second      // between looks at files that a configuration names
	filesRetry        = time.Minute      // until what was refused with them is tried again
	firstPause        = 100 * time.Millisecond
	longestPause      = 10 * time.Second // between starts of an engine that dies
)

// Agent runs one engine. Its methods may be called at the same time.
type Agent struct {
	o       Options
	started time.Time
	metrics *metrics
	flusher *flusher
	orders  chan order
	over    chan struct{} // closed when no more orders are taken

	lastAnswer atomic.Int64 // Unix nanoseconds of the last answer to the local name
	draining   atomic.Bool
	leaving    atomic.Bool // the engine is about to be restarted for a configuration

	vain vain // of the goroutine of Run

	mu       sync.Mutex // guards what follows
	running  *running   // nil before the first start
	inForce  *configuration
	replaced chan struct{} // closed when inForce is another one, and made anew
	newest   string        // digest of the newest configuration that was seen
	refused  error         // why the newest configuration is not in force; nil: it is, or is being applied
	logged   string        // the complaint that was logged last, without numbers
	pending  string        // what the newest configuration waits for; "": nothing
	version  string        // of the engine; "": not known yet
	recursed *pool.Recursion
	deaths   uint64 // of engines, that nobody asked for
}

// configuration is a Pool and the digest of its text. It is immutable.
type configuration struct {
	*pool.Pool
	digest string
}

// order is a configuration that is to come into force.
type order struct {
	*configuration
	done chan<- error // takes one element without being waited for
	// again says that files have changed, of a configuration that is in force. It has no effect if another is meanwhile.
	again bool
}

// vain is a restart for a configuration that was taken back.
type vain struct {
	generation string // "": there was none
	at         time.Time
	why        error
}

// TextError says that a text is no pool.Pool: another attempt is of no use.
type TextError struct{ Err error }

func (e *TextError) Error() string { return e.Err.Error() }

func (e *TextError) Unwrap() error { return e.Err }

// running is an engine with the files that it has read. It is immutable.
type running struct {
	config   *engine.Config
	rendered *engine.Rendered
	process  *process
	control  control.Engine
	at       netip.AddrPort // where it is probed
}

// alive reports whether the process has not ended.
func (r *running) alive() bool {
	select {
	case <-r.process.exited:
		return false
	default:
		return true
	}
}

// New returns an agent that Run makes work.
func New(o Options) *Agent {
	a := &Agent{o: o, started: time.Now(), orders: make(chan order), over: make(chan struct{}), replaced: make(chan struct{})}
	a.metrics, a.flusher = newMetrics(a), newFlusher(a)
	return a
}

// current is the engine that runs, or nil.
func (a *Agent) current() *running {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running
}

// Ready is nil if the engine answers clients, and else says why they are not to be sent here. Authorities that do not
// answer are no reason: RecursionCheck has a metric.
func (a *Agent) Ready() error {
	switch {
	case a.draining.Load():
		return errors.New("draining")
	case a.leaving.Load():
		return errors.New("draining, to be restarted for its new configuration")
	}
	return a.answers()
}

// answers is nil if the engine answers its local name.
func (a *Agent) answers() error {
	switch age := time.Since(time.Unix(0, a.lastAnswer.Load())); {
	case a.lastAnswer.Load() == 0:
		return fmt.Errorf("%s has not answered yet", a.o.Product)
	case age > probeAge:
		return fmt.Errorf("%s has not answered for %.1fs", a.o.Product, age.Seconds())
	}
	return nil
}

// Refused is why the newest configuration is not in force, or nil.
func (a *Agent) Refused() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// doing is the configuration in force, and a channel that is closed when it is another one.
func (a *Agent) doing() (*configuration, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inForce, a.replaced
}

// Configure has the engine do what the text of a pool.Pool says, and returns when it does, or why it does not: then it goes
// on as before. Run has to run. An error is the engine's complaint, or what the text lacks: it may pass, but for a TextError.
// An engine that would lose its cache waits for its turn, answers on for Options.Drain, and is restarted then.
func (a *Agent) Configure(ctx context.Context, text []byte) error {
	digest := pool.Digest(text)
	a.mu.Lock()
	if a.newest != digest {
		a.newest, a.refused = digest, nil
	}
	a.mu.Unlock()
	p, err := pool.Decode(text)
	if err != nil {
		return a.refuse(digest, &TextError{err})
	}
	done := make(chan error, 1)
	select {
	case a.orders <- order{configuration: &configuration{p, digest}, done: done}:
		return <-done
	case <-a.over:
		return errors.New("the agent is stopping")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Refuse notes why a newer configuration than the one in force can't be read.
func (a *Agent) Refuse(why error) {
	a.mu.Lock()
	a.newest = ""
	a.mu.Unlock()
	_ = a.refuse("", why)
}

// numbers differ in what is else the same complaint: clocks, ports, names that nobody has.
var numbers = regexp.MustCompile(`[0-9a-f]*[0-9][0-9a-f]*`)

// refuse notes why a configuration is not in force, and returns it.
func (a *Agent) refuse(digest string, why error) error {
	a.metrics.refusals.Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	if text := digest + " " + numbers.ReplaceAllString(why.Error(), "0"); text != a.logged {
		a.logged = text
		a.o.Log.Error(why, "the new configuration is refused: the engine goes on with the one before", "engine", a.o.Product, "configuration", digest)
	}
	if a.newest == digest {
		a.refused = why
	}
	return why
}

// Run starts the engine when there is a first good configuration, and keeps it running until ctx ends and it has been
// drained. It is called once.
func (a *Agent) Run(ctx context.Context) {
	stop := sync.OnceFunc(func() { close(a.over) })
	defer stop()
	for a.current() == nil {
		select {
		case <-ctx.Done():
			return
		case o := <-a.orders:
			o.done <- a.take(ctx, o.configuration)
		}
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	for _, f := range []func(context.Context){a.probe, a.checkRecursion, a.flusher.run, a.watch, a.watchFiles, a.keepWarm} {
		work.Go(func() { f(inner) })
	}
	a.supervise(ctx)
	stop()
	a.draining.Store(true)
	a.drain()
	cancel()
	work.Wait()
}

// supervise reacts to what happens to the engine and its configuration until ctx ends.
func (a *Agent) supervise(ctx context.Context) {
	hung := time.NewTicker(time.Second)
	defer hung.Stop()
	var again <-chan time.Time // when a dead engine is started
	pause := firstPause
	var waits *order          // for its turn to restart the engine
	var turn <-chan time.Time // when it comes, and when the engine has drained
	end := func(err error) {
		if waits != nil {
			waits.done <- err
		}
		waits, turn = nil, nil
		a.leaving.Store(false)
		a.waitFor("")
	}
	for {
		exited := a.current().process.exited
		if again != nil {
			exited = nil
		}
		select {
		case <-ctx.Done():
			a.draining.Store(true)
			end(errors.New("the agent is stopping"))
			return
		case o := <-a.orders:
			if c, _ := a.doing(); o.again && (waits != nil || c != o.configuration) {
				o.done <- errSuperseded
				break
			}
			if !a.restarts(o.configuration) {
				end(errSuperseded)
				o.done <- a.take(ctx, o.configuration)
				break
			}
			if waits != nil {
				waits.done <- errSuperseded
			} else {
				in := a.delay()
				turn = time.After(in)
				a.waitFor(fmt.Sprintf("restarts at %s, as its new configuration needs an empty cache", time.Now().Add(in).UTC().Format(time.TimeOnly)))
				a.o.Log.Info("the engine is to be restarted for its new configuration", "engine", a.o.Product, "in", in)
			}
			waits = &o
		case <-turn:
			if !a.leaving.Swap(true) {
				turn = time.After(a.o.Drain)
				break
			}
			end(a.take(ctx, waits.configuration))
		case <-exited:
			r := a.current()
			a.o.Log.Error(r.process.ended(), "the engine is gone", "engine", a.o.Product, "startIn", pause)
			a.metrics.deaths.Inc()
			a.mu.Lock()
			a.deaths++
			a.mu.Unlock()
			if waits != nil {
				end(a.take(ctx, waits.configuration)) // nothing is left to wait for
				break
			}
			// Half and all of the pause, so that a pool's engines that died of one query do not start as one.
			again = time.After(pause/2 + rand.N(pause/2))
			pause = min(2*pause, longestPause)
		case <-again:
			again = nil
			r := a.current()
			if r.alive() {
				break // a new configuration has started one meanwhile
			}
			if next, err := a.start(ctx, r.config, r.rendered); err != nil {
				a.o.Log.Error(err, "starting the engine again", "engine", a.o.Product)
				again = time.After(pause)
				pause = min(2*pause, longestPause)
			} else {
				a.replace(ctx, next)
				a.o.Log.Info("the engine runs again", "engine", a.o.Product)
			}
		case <-hung.C:
			silence := time.Since(time.Unix(0, a.lastAnswer.Load()))
			switch {
			case again == nil && silence > hungAfter:
				a.o.Log.Info("the engine does not answer: killed", "engine", a.o.Product, "silence", silence.Round(time.Second))
				a.lastAnswer.Store(time.Now().UnixNano() - int64(probeAge) - 1) // unready still, and again as long to start
				a.current().process.stop(0)
			case silence < probeAge:
				pause = firstPause
			}
		}
	}
}

// errSuperseded says that a configuration has waited until there was a newer one.
var errSuperseded = errors.New("there is a newer configuration")

// waitFor says what the newest configuration waits for; "": nothing.
func (a *Agent) waitFor(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending = what
}

// delay is how long this member waits before its engine is restarted for a configuration that others may be told too.
func (a *Agent) delay() time.Duration {
	if a.o.Spread <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, a.o.Name)
	return time.Duration(h.Sum64() % uint64(a.o.Spread))
}

// restarts reports whether a configuration that looks good takes a restart, with an empty cache, of an engine that answers.
func (a *Agent) restarts(c *configuration) bool {
	before := a.current()
	if !before.alive() || a.answers() != nil {
		return false
	}
	placed, err := a.place(c.Pool)
	if err != nil {
		return false
	}
	rendered, err := a.prepare(placed)
	if err != nil || rendered.Generation == before.rendered.Generation || a.inVain(rendered) != nil {
		return false
	}
	_, how := difference(before.rendered, rendered)
	return how == engine.Restart
}

// inVain is why a restart for a configuration was in vain a short time ago; nil: it was not.
func (a *Agent) inVain(rendered *engine.Rendered) error {
	if a.vain.generation != rendered.Generation || time.Since(a.vain.at) > vainFor {
		return nil
	}
	return a.vain.why
}

// drain lets the engine answer on for a while, and stops it. One that dies meanwhile stays dead.
func (a *Agent) drain() {
	p := a.current().process
	a.o.Log.Info("draining", "for", a.o.Drain)
	t := time.NewTimer(a.o.Drain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.exited:
	}
	p.stop(stopGrace)
}

// replace makes next the engine that runs.
func (a *Agent) replace(ctx context.Context, next *running) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	version, err := next.control.Version(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = next
	if err == nil {
		a.version = version
	}
}

// begin starts the engine with its first configuration.
func (a *Agent) begin(ctx context.Context, c *engine.Config) error {
	rendered, err := a.prepare(c)
	if err != nil {
		return err
	}
	// What an engine of an earlier agent has left: it ended with its agent, its sockets did not. Nobody knows which names of
	// a cache that survived have changed since.
	for _, stale := range []string{engine.UnboundSocket, engine.RecursorSocket, engine.KnotResolverControl, engine.KnotResolverCache} {
		if err := os.RemoveAll(filepath.Join(a.o.Folder.String(), stale)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(a.o.Folder.String(), engine.KnotResolverControl), 0o700); err != nil {
		return err
	}
	if err := a.write(rendered.Files); err != nil {
		return err
	}
	next, err := a.start(ctx, c, rendered)
	if err != nil {
		return err
	}
	a.replace(ctx, next)
	a.metrics.changes.WithLabelValues("Started").Inc()
	a.o.Log.Info("the engine runs", "engine", a.o.Product, "generation", rendered.Generation, "unsupported", rendered.Unsupported)
	return nil
}

// prepare renders a configuration and has the engine's own check look at it, beside the files of the running engine.
func (a *Agent) prepare(c *engine.Config) (*engine.Rendered, error) {
	rendered, err := engine.Render(a.o.Product, c, a.o.Folder)
	if err != nil {
		return nil, err
	}
	if rendered.Check == nil {
		return rendered, nil
	}
	next, err := os.MkdirTemp(a.o.Folder.String(), "next-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(next)
	for _, f := range rendered.Files {
		if err := os.WriteFile(filepath.Join(next, f.Name), []byte(f.Content), 0o600); err != nil {
			return nil, err
		}
	}
	if err := runCheck(next, rendered.Check); err != nil {
		return nil, fmt.Errorf("%s refuses its configuration: %w", a.o.Product, err)
	}
	return rendered, nil
}

// write puts files into the engine's folder, each at once or not at all.
func (a *Agent) write(files []engine.File) error {
	for _, f := range files {
		if err := renameio.WriteFile(filepath.Join(a.o.Folder.String(), f.Name), []byte(f.Content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts a process on the files that are in the folder, and returns when it answers by them.
func (a *Agent) start(ctx context.Context, c *engine.Config, rendered *engine.Rendered) (*running, error) {
	p, err := startProcess(a.o.Folder.String(), rendered.Program, rendered.Args, a.o.EngineLog)
	if err != nil {
		return nil, err
	}
	r := &running{c, rendered, p, connect(a.o.Product, a.o.Folder.String(), p.pid()), reachable(c.Listen[0])}
	if err := a.await(ctx, r); err != nil {
		p.stop(0)
		return nil, err
	}
	return r, nil
}

// await returns when the engine answers by its configuration, or fails when it has ended or the time is over.
func (a *Agent) await(ctx context.Context, r *running) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answers, err := a.answersBy(ctx, r)
		if answers {
			a.lastAnswer.Store(time.Now().UnixNano())
			return nil
		}
		select {
		case <-r.process.exited:
			return fmt.Errorf("%s %w", a.o.Product, r.process.ended())
		case <-ctx.Done():
			if err == nil {
				err = errors.New("it goes on with the one before")
			}
			return fmt.Errorf("%s does not answer by its new configuration: %w", a.o.Product, err)
		case <-tick.C:
		}
	}
}

// answersBy reports whether the process answers by its configuration.
func (a *Agent) answersBy(ctx context.Context, r *running) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var g string
	var err error
	// Two processes of Knot Resolver share the address while one takes over: which one is known by its socket alone.
	if k, ok := r.control.(control.KnotResolver); ok {
		if g, err = k.Generation(ctx); err != nil || g != r.rendered.Generation {
			return false, err
		}
	}
	g, err = generation(ctx, r.at)
	if _, ok := r.control.(control.KnotResolver); ok {
		return err == nil && g != "", err
	}
	return err == nil && g == r.rendered.Generation, err
}

// take has the engine go by a configuration, or tells why not.
func (a *Agent) take(ctx context.Context, c *configuration) error {
	err := a.apply(ctx, c.Pool)
	if err != nil {
		return a.refuse(c.digest, err)
	}
	a.tidy(c.Pool)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inForce = c; a.newest == c.digest {
		a.refused, a.logged = nil, ""
	}
	close(a.replaced)
	a.replaced = make(chan struct{})
	return nil
}

// apply makes the engine do what a configuration says, by the lightest way. If the engine refuses, or can't resolve any more
// what it could before, it is as it was when apply returns, and the error says why.
func (a *Agent) apply(ctx context.Context, p *pool.Pool) error {
	before := a.current()
	c, err := a.place(p)
	if err != nil {
		return err
	}
	if before == nil {
		return a.begin(ctx, c)
	}
	rendered, err := a.prepare(c)
	if err != nil {
		return err
	}
	if rendered.Generation == before.rendered.Generation {
		// What the engine can't do is in no file.
		a.replace(ctx, &running{c, rendered, before.process, before.control, before.at})
		return nil
	}
	changed, how := difference(before.rendered, rendered)
	costly := how == engine.Restart && before.alive() // a cache is lost each time
	if why := a.inVain(rendered); costly && why != nil {
		return why
	}
	healthy := p.RecursionCheck != (engine.Name{}) && resolves(ctx, before.at, p.RecursionCheck) == nil
	if err := a.write(rendered.Files); err != nil {
		return errors.Join(err, a.write(before.rendered.Files))
	}
	next, err := a.change(ctx, before, c, rendered, changed, how)
	if err == nil && healthy {
		if why := resolves(ctx, next.at, p.RecursionCheck); why != nil {
			err = fmt.Errorf("with its new configuration %s does not resolve names below %s any more: %w", a.o.Product, p.RecursionCheck, why)
		}
	}
	if err != nil {
		if costly {
			a.vain = vain{rendered.Generation, time.Now(), err}
		}
		return errors.Join(err, a.goBack(ctx, before, next, changed, how))
	}
	a.replace(ctx, next)
	a.remove(before.rendered, rendered)
	a.metrics.changes.WithLabelValues(how.String()).Inc()
	a.o.Log.Info("the configuration is in force", "engine", a.o.Product, "by", how.String(), "generation", rendered.Generation, "unsupported", rendered.Unsupported)
	return nil
}

// filesFolder is where a Pool's files are, in the engine's folder.
const filesFolder = "files"

// place is the engine's part of a Pool on this machine. The Pool's files are written.
func (a *Agent) place(p *pool.Pool) (*engine.Config, error) {
	folder := filepath.Join(a.o.Folder.String(), filesFolder)
	h := pool.Host{Engine: a.o.Product, Listen: a.o.Listen, Files: folder}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, n := range own {
		if of, is := n.(*net.IPNet); is {
			if addr, ok := netip.AddrFromSlice(of.IP); ok {
				h.Addresses = append(h.Addresses, addr.Unmap())
			}
		}
	}
	c, err := p.At(h)
	if err != nil {
		return nil, err
	}
	if len(p.Files) > 0 {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
	}
	for name, text := range p.Files {
		if err := renameio.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	c.FileDigests = digests(c)
	return c, readable(c)
}

// digests are those of the files of a configuration that can be read.
func digests(c *engine.Config) map[engine.Path][sha256.Size]byte {
	all := map[engine.Path][sha256.Size]byte{}
	for _, p := range c.ReadFiles() {
		if content, err := os.ReadFile(p.String()); err == nil {
			all[p] = sha256.Sum256(content)
		}
	}
	return all
}

// watchFiles has the configuration in force applied again when there is something else in its files, until ctx ends.
func (a *Agent) watchFiles(ctx context.Context) {
	tick := time.NewTicker(filesLook)
	defer tick.Stop()
	var tried map[engine.Path][sha256.Size]byte
	var at time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, _ := a.doing()
		r := a.current()
		now := digests(r.config)
		inForce, known := maps.Equal(now, r.config.FileDigests), maps.Equal(now, tried)
		// What was refused meanwhile, and is as before again, is a complaint no more.
		if inForce && (known || tried == nil) || known && time.Since(at) < filesRetry {
			continue
		}
		tried, at = now, time.Now()
		done := make(chan error, 1)
		select {
		case a.orders <- order{configuration: c, done: done, again: true}:
			if err := <-done; err != nil {
				continue // it is noted
			}
		case <-a.over:
			return
		}
	}
}

// readable fails if files that a configuration names can't be read, of which not every engine says something.
func readable(c *engine.Config) error {
	var errs []error
	look := func(field string, p engine.Path) {
		if p == (engine.Path{}) {
			return
		}
		f, err := os.Open(p.String())
		if err != nil {
			errs = append(errs, &engine.ConfigError{Field: field, Defect: "can't be read: " + err.Error()})
			return
		}
		_ = f.Close()
	}
	if c.TLS != nil {
		look("tls.certificate", c.TLS.Certificate)
		look("tls.key", c.TLS.Key)
	}
	for i, f := range c.Forward {
		for j, u := range f.Upstreams {
			if u.TLS != nil {
				look(fmt.Sprintf("forward[%d].upstreams[%d].tls.ca", i, j), u.TLS.CA)
			}
		}
	}
	for i, z := range c.Block.RPZ {
		look(fmt.Sprintf("block.rpz[%d].file", i), z.File)
	}
	return errors.Join(errs...)
}

// tidy deletes files of Pools of before.
func (a *Agent) tidy(p *pool.Pool) {
	folder := filepath.Join(a.o.Folder.String(), filesFolder)
	there, err := os.ReadDir(folder)
	if err != nil {
		return // there are none
	}
	for _, f := range there {
		if _, ok := p.Files[f.Name()]; !ok {
			_ = os.Remove(filepath.Join(folder, f.Name()))
		}
	}
}

// change has the engine that runs, or another process, read the files in the folder. Whatever it returns, before is what to
// go back to.
func (a *Agent) change(ctx context.Context, before *running, c *engine.Config, rendered *engine.Rendered, changed []string, how engine.Change) (*running, error) {
	switch {
	case !before.alive():
		return a.start(ctx, c, rendered)
	case how <= engine.Reload:
		next := &running{c, rendered, before.process, before.control, reachable(c.Listen[0])}
		if err := reload(ctx, before.control, changed); err != nil {
			return next, err
		}
		return next, a.await(ctx, next)
	case how == engine.Replace:
		next, err := a.start(ctx, c, rendered)
		if err != nil {
			return nil, err
		}
		before.process.stop(stopGrace)
		return next, nil
	default:
		before.process.stop(stopGrace)
		return a.start(ctx, c, rendered)
	}
}

// goBack undoes change: the files and the engine are as before, by another process if need be.
func (a *Agent) goBack(ctx context.Context, before, next *running, changed []string, how engine.Change) error {
	if err := a.write(before.rendered.Files); err != nil {
		return err
	}
	if before.alive() {
		if how > engine.Reload {
			return nil // the process before was not stopped
		}
		if err := reload(ctx, before.control, changed); err == nil && a.await(ctx, before) == nil {
			return nil
		}
		before.process.stop(0)
	}
	// Where the cache is kept two processes may share the addresses: there the one takes over from the other.
	if how == engine.Restart && next != nil && next.alive() {
		next.process.stop(stopGrace)
	}
	old, err := a.start(ctx, before.config, before.rendered)
	if next != nil && next.alive() && next.process != before.process {
		next.process.stop(stopGrace)
	}
	if err != nil {
		return fmt.Errorf("going back to the configuration before: %w", err)
	}
	a.replace(ctx, old)
	return nil
}

// difference is which files two configurations differ in, and the least that makes an engine see it.
func difference(from, to *engine.Rendered) (changed []string, how engine.Change) {
	content := func(r *engine.Rendered, name string) string {
		i := slices.IndexFunc(r.Files, func(f engine.File) bool { return f.Name == name })
		if i < 0 {
			return ""
		}
		return r.Files[i].Content
	}
	for _, side := range [][]engine.File{from.Files, to.Files} {
		for _, f := range side {
			if content(from, f.Name) != content(to, f.Name) && !slices.Contains(changed, f.Name) {
				changed, how = append(changed, f.Name), max(how, f.Change)
			}
		}
	}
	return changed, how
}

// remove deletes files that the engine reads no more.
func (a *Agent) remove(before, now *engine.Rendered) {
	for _, f := range before.Files {
		if !slices.ContainsFunc(now.Files, func(g engine.File) bool { return g.Name == f.Name }) {
			_ = os.Remove(filepath.Join(a.o.Folder.String(), f.Name))
		}
	}
}

// probe asks the engine for its local name again and again.
func (a *Agent) probe(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		r := a.current()
		one, cancel := context.WithTimeout(ctx, probeTimeout)
		began := time.Now()
		g, err := generation(one, r.at)
		cancel()
		if err == nil && g != "" {
			a.lastAnswer.Store(time.Now().UnixNano())
			a.metrics.probe.Observe(time.Since(began).Seconds())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkRecursion asks through the engine for a name at the end of the hierarchy again and again.
func (a *Agent) checkRecursion(ctx context.Context) {
	tick := time.NewTicker(recursionInterval)
	defer tick.Stop()
	for {
		c, replaced := a.doing()
		var result *pool.Recursion
		if c.RecursionCheck != (engine.Name{}) {
			began := time.Now()
			err := resolves(ctx, a.current().at, c.RecursionCheck)
			result = &pool.Recursion{OK: err == nil, Seconds: time.Since(began).Seconds()}
			if err != nil {
				result.Why = err.Error()
			}
			a.metrics.recursed(result)
		}
		a.mu.Lock()
		a.recursed = result
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		case <-tick.C:
		}
	}
}

// resolves fails if the engine gets no answer of authorities to a name below zone that is in nobody's cache.
func resolves(ctx context.Context, at netip.AddrPort, zone engine.Name) error {
	ctx, cancel := context.WithTimeout(ctx, recursionTimeout)
	defer cancel()
	name := strings.TrimSuffix(fmt.Sprintf("fingerpost-check-%08x.%s", rand.Uint32(), zone), ".") + "."
	reply, err := ask(ctx, beside(at), at, question(name, dns.TypeA, true))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case reply.Rcode != dns.RcodeNameError && reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("%s: %s", name, dns.RcodeToString[reply.Rcode])
	case stale(reply):
		return fmt.Errorf("%s: answered from expired records", name)
	}
	return nil
}

// stale reports whether a server says that an answer is from expired records (RFC 8914 §4.4, §4.20).
func stale(m *dns.Msg) bool {
	o := m.IsEdns0()
	return o != nil && slices.ContainsFunc(o.Option, func(e dns.EDNS0) bool {
		ede, ok := e.(*dns.EDNS0_EDE)
		return ok && (ede.InfoCode == dns.ExtendedErrorCodeStaleAnswer || ede.InfoCode == dns.ExtendedErrorCodeStaleNXDOMAINAnswer)
	})
}
