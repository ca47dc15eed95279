// Package control speaks the control protocols of recursive servers, over their unix sockets.
package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Engine is a running recursive server. Methods may be called at the same time; each is one connection or more, and ends
// with its context. An error says what the server said.
type Engine interface {
	// Flush forgets all records of names, and that there are none; names below them stay. held says for each whether there
	// was something to forget; a server that does not tell is taken to have had something.
	Flush(ctx context.Context, names ...zone.Name) (held []bool, err error)
	// FlushTree forgets a name and all below it. It may take long, and clients wait.
	FlushTree(ctx context.Context, name zone.Name) error
	// Version is the server's own, such as "1.17.1".
	Version(ctx context.Context) (string, error)
	// Statistics tells what has happened since the server started.
	Statistics(ctx context.Context) (Statistics, error)
}

// Statistic is something that servers count, by one word for all products.
type Statistic string

// What servers count. All but CacheEntries and AnswerSeconds only grow while a server runs.
const (
	Queries      Statistic = "queries"           // of clients
	CacheHits    Statistic = "cache_hits"        // of Queries
	CacheMisses  Statistic = "cache_misses"      // of Queries
	Stale        Statistic = "stale_answers"     // from expired records
	Prefetches   Statistic = "prefetches"        // records asked for before they expired
	NoError      Statistic = "answers_noerror"   // NODATA included
	NXDomain     Statistic = "answers_nxdomain"  //
	ServFail     Statistic = "answers_servfail"  //
	Refused      Statistic = "refused"           // queries of those who are not answered, dropped ones included
	Limited      Statistic = "limited"           // queries over a limit
	Upstream     Statistic = "upstream_queries"  // to authorities and upstreams
	Timeouts     Statistic = "upstream_timeouts" // of Upstream
	CacheEntries Statistic = "cache_entries"     // at present
	// AnswerSeconds is a mean time of answers. Unbound: of those that authorities were asked for, since its start. Recursor: of the
	// last ones, those from its packet cache apart. Knot Resolver: of all since its start, from classes of times.
	AnswerSeconds Statistic = "answer_seconds"
)

// All are the words, in the order above.
func All() []Statistic {
	return []Statistic{Queries, CacheHits, CacheMisses, Stale, Prefetches, NoError, NXDomain, ServFail, Refused, Limited, Upstream, Timeouts, CacheEntries, AnswerSeconds}
}

// Statistics has what a product counts. What it does not count is not there: see docs/resolvers.md.
type Statistics map[Statistic]float64

// socket is a server's control socket. It is for concurrent use.
type socket struct {
	path  string
	turns chan struct{}
}

// newSocket is the socket at a path of a server that takes so many connections at a time: what is beyond waits here.
func newSocket(path string, connections int) *socket {
	return &socket{path, make(chan struct{}, connections)}
}

// dial connects when it is its turn. The connection ends with ctx, or after the time that no command takes.
func (s *socket) dial(ctx context.Context) (net.Conn, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return nil, nil, ctx.Err()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		<-s.turns
		cancel()
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { stop(); cancel(); conn.Close(); <-s.turns }, nil
}

// maxReply bounds what is read of one reply, in octets.
const maxReply = 16 << 20

// readAll reads until the other side closes.
func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxReply))
	return string(b), err
}

// failed says which command of which server failed.
func failed(server, command string, err error) error {
	if os.IsTimeout(err) {
		err = fmt.Errorf("no reply in time: %w", err)
	}
	return fmt.Errorf("%s: %s: %w", server, command, err)
}
