package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Recursor is PowerDNS Recursor, reached by the socket in its socket-dir.
type Recursor struct{ socket *socket }

// NewRecursor reaches the server by the path of its socket. It has no queue of connections: who comes second gets EAGAIN.
func NewRecursor(path string) Recursor { return Recursor{newSocket(path, 1)} }

// do runs one command. Both ways go a status (int32), a length (uint64) and a text, numbers as the machine has them.
func (r Recursor) do(ctx context.Context, command string) (string, error) {
	conn, done, err := r.socket.dial(ctx)
	if err != nil {
		return "", failed("recursor", command, err)
	}
	defer done()
	head := make([]byte, 12)
	binary.NativeEndian.PutUint64(head[4:], uint64(len(command)))
	if _, err := conn.Write(append(head, command...)); err != nil {
		return "", failed("recursor", command, err)
	}
	if _, err := io.ReadFull(conn, head); err != nil {
		return "", failed("recursor", command, err)
	}
	length := binary.NativeEndian.Uint64(head[4:])
	if length > maxReply {
		return "", failed("recursor", command, fmt.Errorf("a reply of %d octets", length))
	}
	reply := make([]byte, length)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return "", failed("recursor", command, err)
	}
	text := strings.TrimSpace(string(reply))
	if status := int32(binary.NativeEndian.Uint32(head)); status != 0 || strings.HasPrefix(text, "Unknown command") {
		return "", failed("recursor", command, errors.New(text))
	}
	return text, nil
}

// Flush implements Engine. It forgets whole answers as well, in every thread.
func (r Recursor) Flush(ctx context.Context, names ...zone.Name) ([]bool, error) {
	held := make([]bool, len(names))
	for i, name := range names {
		// A final $ would stand for all names below: an absolute name ends in a dot.
		reply, err := r.do(ctx, "wipe-cache "+name.String())
		if err != nil {
			return nil, err
		}
		held[i] = reply != "wiped 0 records, 0 negative records, 0 packets"
	}
	return held, nil
}

// FlushTree implements Engine.
func (r Recursor) FlushTree(ctx context.Context, name zone.Name) error {
	_, err := r.do(ctx, "wipe-cache "+name.String()+"$")
	return err
}

// ReloadZones reads forward zones and zones of its own again.
func (r Recursor) ReloadZones(ctx context.Context) error {
	reply, err := r.do(ctx, "reload-zones")
	if err == nil && !strings.HasPrefix(reply, "ok") {
		err = failed("recursor", "reload-zones", errors.New(reply))
	}
	return err
}

// ReloadQueries reads the program again that looks at queries.
func (r Recursor) ReloadQueries(ctx context.Context) error {
	reply, err := r.do(ctx, "reload-lua-script queries.lua")
	if err == nil && !strings.HasPrefix(reply, "(re)loaded") {
		err = failed("recursor", "reload-lua-script", errors.New(reply))
	}
	return err
}

// ReloadLua reads the Lua configuration again: block lists and trust anchors.
func (r Recursor) ReloadLua(ctx context.Context) error {
	reply, err := r.do(ctx, "reload-lua-config")
	if err == nil && !strings.HasPrefix(reply, "Reloaded") {
		err = failed("recursor", "reload-lua-config", errors.New(reply))
	}
	return err
}

// Version implements Engine.
func (r Recursor) Version(ctx context.Context) (string, error) { return r.do(ctx, "version") }

// Statistics implements Engine.
func (r Recursor) Statistics(ctx context.Context) (Statistics, error) {
	reply, err := r.do(ctx, "get-all")
	if err != nil {
		return nil, err
	}
	from := values(reply, "\t")
	if microseconds, told := from["qa-latency"]; told {
		from["latency"] = microseconds / 1e6
	}
	return pick(from, []counter{
		{AnswerSeconds, []string{"latency"}},
		{Queries, []string{"questions"}},
		{CacheHits, []string{"packetcache-hits", "cache-hits"}},
		{CacheMisses, []string{"cache-misses"}},
		{NoError, []string{"noerror-answers"}},
		{NXDomain, []string{"nxdomain-answers"}},
		{ServFail, []string{"servfail-answers"}},
		{Refused, []string{"fingerpost-refused"}},
		{Limited, []string{"fingerpost-limited"}},
		{Upstream, []string{"all-outqueries"}},
		{Timeouts, []string{"outgoing-timeouts"}},
		{CacheEntries, []string{"cache-entries"}},
		{Stale, []string{"record-cache-stale-served"}},
		{Prefetches, []string{"almost-expired-pushed"}},
	}), nil
}
