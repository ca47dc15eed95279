//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
)

// question is what a client asks one address of servers.
type question struct {
	about  string     // the client and whom it asks, for people
	from   string     // the machine that it is at
	client netip.Addr // its address there; the zero value leaves that to the machine
	server netip.Addr
	name   string
	rrtype uint16
	want   string // rdata that the answer must have

	recursion bool // asked as a client asks a resolver, and not as a resolver
}

// patience is how long a client waits for an answer, and how long it then waits before it asks again.
const patience = time.Second

// ask asks once. The error says what is wrong with the answer, or that there was none.
func (q question) ask(ctx context.Context, c *cluster.Cluster, network string) (*dns.Msg, error) {
	if network == "tcp" { // a UDP socket is made without a word to anybody
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	conn, err := c.Dial(ctx, q.from, network, q.client, netip.AddrPortFrom(q.server, 53))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	const udpSize = 1232
	query := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), q.rrtype)
	query.RecursionDesired = q.recursion
	query.SetEdns0(udpSize, false)
	wire := &dns.Conn{Conn: conn, UDPSize: udpSize}
	if err := wire.WriteMsg(query); err != nil {
		return nil, err
	}
	reply, err := wire.ReadMsg()
	switch {
	case err != nil:
		return nil, err
	case reply.Id != query.Id:
		return nil, errors.New("an answer to another question")
	case reply.Rcode != dns.RcodeSuccess:
		return reply, errors.New(dns.RcodeToString[reply.Rcode])
	case q.want != "" && !slices.Contains(rdata(reply.Answer), q.want):
		return reply, fmt.Errorf("the answer is %s, and not %s", strings.Join(rdata(reply.Answer), " "), q.want)
	}
	return reply, nil
}

// rdata returns what records say, without owner, TTL, class and type.
func rdata(records []dns.RR) []string {
	var all []string
	for _, rr := range records {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return all
}

// questioner asks steadily, each time from a new port, as resolvers do. What gets no right answer is asked once more of the same
// address a second later: resolvers would turn to another address long before.
type questioner struct {
	cluster *cluster.Cluster
	stop    context.CancelFunc
	asking  sync.WaitGroup

	mu    sync.Mutex
	tally map[string]*tally // by question.about
}

// tally is what became of one question.
type tally struct {
	asked, lost, failed int      // lost: the first time; failed: the second time, too
	log                 []string // of losses, one line each
}

// interval is how often each question is asked; one in tcpEvery is asked over TCP.
const (
	interval = 50 * time.Millisecond
	tcpEvery = 10
)

// startAsking asks all questions until the questioner is told to stop.
func startAsking(ctx context.Context, c *cluster.Cluster, questions ...question) *questioner {
	ctx, stop := context.WithCancel(ctx)
	q := &questioner{cluster: c, stop: stop, tally: map[string]*tally{}}
	for _, question := range questions {
		q.tally[question.about] = &tally{}
		q.asking.Go(func() { q.repeat(ctx, question) })
	}
	return q
}

func (q *questioner) repeat(ctx context.Context, about question) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		network := "udp"
		if n%tcpEvery == 0 {
			network = "tcp"
		}
		// What has been asked is waited for, also at the end.
		q.asking.Go(func() { q.askTwice(context.WithoutCancel(ctx), about, network) })
	}
}

func (q *questioner) askTwice(ctx context.Context, about question, network string) {
	asked := time.Now()
	_, first := about.ask(ctx, q.cluster, network)
	var second error
	if first != nil {
		pause := time.NewTimer(patience)
		<-pause.C
		_, second = about.ask(ctx, q.cluster, network)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tally[about.about]
	t.asked++
	if first == nil {
		return
	}
	t.lost++
	line := fmt.Sprintf("%s %s: %v", asked.Format("15:04:05.000"), network, first)
	if second != nil {
		t.failed++
		line += fmt.Sprintf("; again a second later: %v", second)
	}
	t.log = append(t.log, line)
}

// end stops asking and returns what became of the questions, in the order of their names.
func (q *questioner) end() report {
	q.stop()
	q.asking.Wait()
	r := report{tally: q.tally}
	for name := range q.tally {
		r.names = append(r.names, name)
	}
	slices.Sort(r.names)
	return r
}

type report struct {
	names []string
	tally map[string]*tally
}

// sum adds up all questions.
func (r report) sum() tally {
	var all tally
	for _, name := range r.names {
		t := r.tally[name]
		all.asked, all.lost, all.failed = all.asked+t.asked, all.lost+t.lost, all.failed+t.failed
		for _, line := range t.log {
			all.log = append(all.log, name+", "+line)
		}
	}
	return all
}

func (t tally) String() string {
	return fmt.Sprintf("%d questions asked, %d lost the first time, %d failed", t.asked, t.lost, t.failed)
}
