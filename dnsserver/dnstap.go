package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	frames "github.com/dnstap/golang-dnstap"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// DnstapConfig is for telling others of queries and replies (https://dnstap.info).
type DnstapConfig struct {
	// Target is unix:PATH, a socket that somebody listens at, or file:PATH. A file that is there is
	// renamed to PATH.old.
	Target string
	// Every is how many queries there are to each that is told; 0 stands for 1.
	Every uint32
}

// dnstapQueue is how many queries wait to be written; more are dropped. With what they have in them
// they take 2 MiB at most over UDP, and hardly more.
const dnstapQueue = 1024

const (
	dnstapRetry   = 10 * time.Second // after a failure
	dnstapTimeout = 5 * time.Second  // of who reads the socket
)

var (
	metricDnstap        = metric("dnstap_frames_total", "Queries and replies told over dnstap.")
	metricDnstapDropped = metric("dnstap_dropped_total", "Queries that were not told over dnstap, because who reads is too slow or not there.")
)

// dnstap is a watcher that tells of queries and replies. Who answers never waits for who reads.
type dnstap struct {
	network, path     string
	identity, version []byte
	log               logr.Logger
	retry             time.Duration

	queue   chan *tapped
	spare   chan *tapped // to be used again
	frames  atomic.Uint64
	dropped atomic.Uint64
}

// tapped is a query that waits to be written.
type tapped struct {
	query, reply []byte // copies; reply is empty if there is none
	client       netip.AddrPort
	over         zone.Transport
	via          transport
	at           time.Time
}

func newDnstap(target, identity, version string, log logr.Logger) (*dnstap, error) {
	network, path, ok := strings.Cut(target, ":")
	if !ok || path == "" || network != "unix" && network != "file" {
		return nil, fmt.Errorf("%q is neither unix:PATH nor file:PATH", target)
	}
	return &dnstap{
		network: network, path: path, identity: []byte(identity), version: []byte("fingerpost " + version), log: log, retry: dnstapRetry,
		queue: make(chan *tapped, dnstapQueue), spare: make(chan *tapped, dnstapQueue),
	}, nil
}

// watch implements watcher.
func (d *dnstap) watch(x *seen) {
	var t *tapped
	select {
	case t = <-d.spare:
	default:
		if len(d.queue) == cap(d.queue) {
			d.dropped.Add(1)
			return
		}
		t = &tapped{}
	}
	t.query, t.reply = append(t.query[:0], x.query...), append(t.reply[:0], x.reply...)
	t.client, t.over, t.via, t.at = x.client, x.over, x.via, time.Now()
	select {
	case d.queue <- t:
	default:
		d.dropped.Add(1)
		d.release(t)
	}
}

func (d *dnstap) release(t *tapped) {
	const kept = 4 << 10 // octets; more is for the garbage collector
	if cap(t.query)+cap(t.reply) > kept {
		return
	}
	select {
	case d.spare <- t:
	default:
	}
}

// run writes until ctx ends, and then what is in the queue.
func (d *dnstap) run(ctx context.Context) error {
	failed := false
	for {
		err := d.write(ctx)
		if err == nil {
			return nil
		}
		if !failed {
			d.log.Error(err, "telling of queries failed; trying again", "target", d.network+":"+d.path)
			failed = true
		}
		if !d.drop(ctx) {
			return nil
		}
	}
}

// drop drops what comes until it is time to try again. It returns false if ctx has ended.
func (d *dnstap) drop(ctx context.Context) bool {
	timer := time.NewTimer(d.retry)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case t := <-d.queue:
			d.dropped.Add(1)
			d.release(t)
		}
	}
}

// write opens the target and writes until ctx ends, then it returns nil, or until it fails.
func (d *dnstap) write(ctx context.Context) error {
	to, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer to.Close()
	w, err := frames.NewWriter(to, &frames.WriterOptions{Bidirectional: d.network == "unix", Timeout: dnstapTimeout})
	if err != nil {
		return fmt.Errorf("beginning frames: %w", err)
	}
	d.log.Info("telling of queries", "target", d.network+":"+d.path)
	frame := dnstapFrame{identity: d.identity, version: d.version}
	for {
		var t *tapped
		select {
		case t = <-d.queue:
		default:
			if err := w.(interface{ Flush() error }).Flush(); err != nil {
				return fmt.Errorf("writing frames: %w", err)
			}
			select {
			case <-ctx.Done():
				return errors.Join(w.Close(), to.Close())
			case t = <-d.queue:
			}
		}
		err := frame.write(w, t)
		d.release(t)
		if err != nil {
			d.dropped.Add(1)
			return fmt.Errorf("writing frames: %w", err)
		}
		d.frames.Add(frame.written)
	}
}

func (d *dnstap) open(ctx context.Context) (io.ReadWriteCloser, error) {
	if d.network == "unix" {
		return (&net.Dialer{Timeout: dnstapTimeout}).DialContext(ctx, d.network, d.path)
	}
	if err := os.Rename(d.path, d.path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// dnstapFrame makes frames of queries and replies.
type dnstapFrame struct {
	identity, version []byte
	b                 []byte
	written           uint64 // by the last call of write
}

// write writes a query and its reply, if it has one.
func (f *dnstapFrame) write(w frames.Writer, t *tapped) error {
	f.written = 0
	seconds, nanoseconds := uint64(t.at.Unix()), uint32(t.at.Nanosecond())
	address := t.client.Addr().WithZone("")
	family, protocol := frames.SocketFamily_INET, t.protocol()
	if address.Is6() {
		family = frames.SocketFamily_INET6
	}
	m := &frames.Message{
		SocketFamily: &family, SocketProtocol: &protocol, QueryAddress: address.AsSlice(),
		QueryTimeSec: &seconds, QueryTimeNsec: &nanoseconds,
	}
	if port := uint32(t.client.Port()); port > 0 {
		m.QueryPort = &port
	}
	m.Type, m.QueryMessage = frames.Message_AUTH_QUERY.Enum(), t.query
	if err := f.message(w, m); err != nil {
		return err
	}
	if len(t.reply) == 0 {
		return nil
	}
	m.Type, m.QueryMessage, m.ResponseMessage = frames.Message_AUTH_RESPONSE.Enum(), nil, t.reply
	m.ResponseTimeSec, m.ResponseTimeNsec = &seconds, &nanoseconds
	return f.message(w, m)
}

func (f *dnstapFrame) message(w frames.Writer, m *frames.Message) error {
	var err error
	f.b, err = proto.MarshalOptions{}.MarshalAppend(f.b[:0], &frames.Dnstap{
		Type: frames.Dnstap_MESSAGE.Enum(), Identity: f.identity, Version: f.version, Message: m,
	})
	if err != nil {
		return err
	}
	if _, err := w.WriteFrame(f.b); err != nil {
		return err
	}
	f.written++
	return nil
}

// protocol is what the query came over.
func (t *tapped) protocol() frames.SocketProtocol {
	switch {
	case t.via == overDoH:
		return frames.SocketProtocol_DOH
	case t.via == overDoT:
		return frames.SocketProtocol_DOT
	case t.over == zone.UDP:
		return frames.SocketProtocol_UDP
	}
	return frames.SocketProtocol_TCP
}

// Describe implements prometheus.Collector.
func (d *dnstap) Describe(ch chan<- *prometheus.Desc) {
	ch <- metricDnstap
	ch <- metricDnstapDropped
}

// Collect implements prometheus.Collector.
func (d *dnstap) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(metricDnstap, prometheus.CounterValue, float64(d.frames.Load()))
	ch <- prometheus.MustNewConstMetric(metricDnstapDropped, prometheus.CounterValue, float64(d.dropped.Load()))
}
