package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Unbound is reached by the socket that control-interface names, without certificates.
type Unbound struct{ socket *socket }

// NewUnbound reaches the server by the path of its socket.
func NewUnbound(path string) Unbound { return Unbound{newSocket(path, 8)} }

// do runs one command: a connection each, "UBCT1 command", and the reply until the server closes.
func (u Unbound) do(ctx context.Context, command string) (string, error) {
	conn, done, err := u.socket.dial(ctx)
	if err != nil {
		return "", failed("unbound", command, err)
	}
	defer done()
	if _, err := fmt.Fprintf(conn, "UBCT1 %s\n", command); err != nil {
		return "", failed("unbound", command, err)
	}
	reply, err := readAll(conn)
	switch {
	case err != nil:
		return "", failed("unbound", command, err)
	case strings.HasPrefix(reply, "error"):
		return "", failed("unbound", command, errors.New(strings.TrimSpace(reply)))
	}
	return reply, nil
}

// Flush implements Engine. Answers that are kept for a client's network (ECS) stay. The server does not tell what it had.
func (u Unbound) Flush(ctx context.Context, names ...zone.Name) ([]bool, error) {
	held := make([]bool, len(names))
	for i, name := range names {
		// "flush" knows the types of old alone.
		commands := []string{"flush " + name.String()}
		for _, t := range []string{"TXT", "HTTPS", "SVCB", "CAA", "TLSA"} {
			commands = append(commands, "flush_type "+name.String()+" "+t)
		}
		for _, c := range commands {
			if _, err := u.do(ctx, c); err != nil {
				return nil, err
			}
		}
		held[i] = true
	}
	return held, nil
}

// FlushTree implements Engine.
func (u Unbound) FlushTree(ctx context.Context, name zone.Name) error {
	_, err := u.do(ctx, "flush_zone "+name.String())
	return err
}

// Reload reads the configuration again and keeps the cache. A server whose configuration is bad says ok and ends: check
// it first.
func (u Unbound) Reload(ctx context.Context) error {
	_, err := u.do(ctx, "reload_keep_cache")
	return err
}

// Version implements Engine.
func (u Unbound) Version(ctx context.Context) (string, error) {
	reply, err := u.do(ctx, "status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(reply) {
		if version, ok := strings.CutPrefix(line, "version: "); ok {
			return strings.TrimSpace(version), nil
		}
	}
	return "", failed("unbound", "status", errors.New("no version"))
}

// Statistics implements Engine.
func (u Unbound) Statistics(ctx context.Context) (Statistics, error) {
	reply, err := u.do(ctx, "stats_noreset")
	if err != nil {
		return nil, err
	}
	return pick(values(reply, "="), []counter{
		{AnswerSeconds, []string{"total.recursion.time.avg"}},
		{Queries, []string{"total.num.queries"}},
		{CacheHits, []string{"total.num.cachehits"}},
		{CacheMisses, []string{"total.num.cachemiss"}},
		{Stale, []string{"total.num.expired"}},
		{Prefetches, []string{"total.num.prefetch"}},
		{NoError, []string{"num.answer.rcode.NOERROR"}},
		{NXDomain, []string{"num.answer.rcode.NXDOMAIN"}},
		{ServFail, []string{"num.answer.rcode.SERVFAIL"}},
		{Refused, []string{"num.answer.rcode.REFUSED"}},
		{Limited, []string{"total.num.queries_ip_ratelimited"}},
		{Upstream, []string{"num.query.tcpout", "num.query.udpout"}},
		{CacheEntries, []string{"msg.cache.count", "rrset.cache.count"}},
	}), nil
}

// counter is a statistic and the product's own words for its parts, which are added.
type counter struct {
	is    Statistic
	parts []string
}

// pick takes those counters whose parts are all there.
func pick(from map[string]float64, counters []counter) Statistics {
	s := Statistics{}
next:
	for _, c := range counters {
		sum := 0.0
		for _, p := range c.parts {
			v, ok := from[p]
			if !ok {
				continue next
			}
			sum += v
		}
		s[c.is] = sum
	}
	return s
}

// values reads lines of a name and a number. Other lines are left out.
func values(lines, between string) map[string]float64 {
	m := map[string]float64{}
	for line := range strings.Lines(lines) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), between)
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			m[name] = v
		}
	}
	return m
}
