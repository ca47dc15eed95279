package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// copyPatience is how long a sibling may send nothing.
const copyPatience = 10 * time.Second

// copyWhenAlone copies from a sibling what this server lacks, whenever it is without a hub for
// SiblingAfter: all zones if it has none, else those that its disk has lost; and documents that
// it lacks. It returns when nothing is lacking.
func (c *Client) copyWhenAlone(ctx context.Context) {
	var failures pauses
	begun := false // a copy of all zones is half done
	for c.waitFree(ctx) {
		only := c.opts.Replica.Lost()
		all := begun || len(c.opts.Replica.Held()) == 0
		req := &controlpb.CopyRequest{Protocol: ProtocolVersion, Documents: true}
		switch {
		case all:
		case len(only) > 0:
			for _, apex := range only {
				req.Apexes = append(req.Apexes, []byte(apex))
			}
		case len(c.opts.Replica.LostDocuments()) > 0:
			req.NoZones = true
		default:
			return
		}
		before := c.sessionCount()
		if !pause(ctx, c.opts.SiblingAfter+failures.next(refusedWait, jitter())) {
			return
		}
		if c.sessionCount() != before {
			begun = false // the hub knows better than half a copy
			continue
		}
		for _, sibling := range c.siblings(ctx) {
			err := c.copyFrom(ctx, sibling, req)
			if err == nil {
				if all {
					c.update(func(s *State) { s.CopiedAll = true })
				}
				c.opts.Log.Info("copied zones from a sibling", "sibling", sibling)
				return
			}
			if ctx.Err() != nil {
				return
			}
			c.opts.Log.Info("copying from a sibling failed", "sibling", sibling, "reason", status.Convert(err).Message())
			begun = begun || all && len(c.opts.Replica.Held()) > 0
			if c.sessionCount() != before {
				break
			}
		}
	}
}

// siblings are the addresses of the other servers of the group. A name may stand for the whole group, this server included,
// which is left out: from itself it would get what it has.
func (c *Client) siblings(ctx context.Context) []string {
	own := map[string]bool{}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		_, port, _ := net.SplitHostPort(c.opts.Peer)
		for _, a := range addresses {
			if n, is := a.(*net.IPNet); is {
				own[net.JoinHostPort(n.IP.String(), port)] = true
			}
		}
	}
	var all []string
	for _, sibling := range c.opts.Siblings {
		host, port, err := net.SplitHostPort(sibling)
		if err != nil {
			all = append(all, sibling) // and let the attempt say what is wrong
			continue
		}
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			c.opts.Log.Info("looking up a sibling failed", "sibling", sibling, "reason", err.Error())
		}
		for _, a := range addresses {
			if at := net.JoinHostPort(a, port); !own[at] && !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	}
	return all
}

func (c *Client) sessionCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions
}

// copyFrom copies what is asked for from one sibling. A hub that welcomes this server ends the copy.
func (c *Client) copyFrom(ctx context.Context, sibling string, req *controlpb.CopyRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.stopCopy = cancel
	c.mu.Unlock()
	if err := c.claim(ctx, ownerCopy); err != nil {
		return err
	}
	defer c.release()
	conn, err := dial(sibling, SiblingTLS(c.opts.Credentials))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	patience := time.AfterFunc(copyPatience, cancel)
	defer patience.Stop()
	stream, err := controlpb.NewSiblingClient(conn).Copy(ctx, req)
	if err != nil {
		return err
	}
	r := newCopier(c)
	r.noZones = req.GetNoZones()
	defer r.installs.Wait()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return r.finish()
		}
		if err != nil {
			return err
		}
		patience.Reset(copyPatience)
		if err := r.take(ctx, m); err != nil {
			return err
		}
	}
}

// copier installs what a sibling sends. The sibling is not trusted with more than its zones
// and its fence: content must have the digest of its version.
type copier struct {
	c       *Client
	noZones bool // were asked for
	offer   *controlpb.Offer
	fence   Fence
	open    *transfer
	begun   map[resource]bool

	slots    chan struct{} // one element for each install under way
	installs sync.WaitGroup
	mu       sync.Mutex
	err      error // the first of an install
}

func newCopier(c *Client) *copier {
	return &copier{c: c, begun: map[resource]bool{}, slots: make(chan struct{}, workers)}
}

func (r *copier) take(ctx context.Context, m *controlpb.CopyMessage) error {
	if offer := m.GetOffer(); (r.offer == nil) != (offer != nil) {
		return errors.New("the sibling did not begin with one offer")
	}
	switch m := m.GetMessage().(type) {
	case *controlpb.CopyMessage_Offer:
		return r.takeOffer(ctx, m.Offer)
	case *controlpb.CopyMessage_Begin:
		return r.takeBegin(m.Begin)
	case *controlpb.CopyMessage_Chunk:
		if r.open == nil || r.open.id != m.Chunk.GetTransfer() {
			return errors.New("the sibling sent a chunk of nothing")
		}
		r.open.received += int64(len(m.Chunk.GetNodes()))
		return r.open.add(m.Chunk.GetNodes())
	case *controlpb.CopyMessage_Commit:
		if r.open == nil || r.open.id != m.Commit.GetTransfer() {
			return errors.New("the sibling ended nothing")
		}
		t := r.open
		r.open = nil
		return r.takeCommit(ctx, t)
	}
	return nil
}

func (r *copier) takeOffer(ctx context.Context, m *controlpb.Offer) error {
	if m.GetZones() == 0 && !r.noZones {
		return errors.New("the sibling has no zones either")
	}
	r.offer = m
	r.fence = r.c.opts.Replica.Fence()
	theirs := Fence{m.GetEpoch(), m.GetCluster()}
	if theirs == r.fence || !r.fence.Admits(theirs) {
		return nil // what they have is older than what was lost here, and better than nothing
	}
	err := r.c.opts.Replica.Raise(context.WithoutCancel(ctx), theirs)
	var undurable *NotDurableError
	if err != nil && !errors.As(err, &undurable) {
		return err
	}
	r.fence = theirs
	r.c.update(func(s *State) { s.Fence = theirs })
	return nil
}

func (r *copier) takeBegin(m *controlpb.Begin) error {
	if r.open != nil {
		return errors.New("the sibling began a transfer before it ended the last")
	}
	if m.GetDocument() != nil {
		d, err := parseDocument(m.GetDocument())
		if err != nil {
			return err
		}
		return r.begin(&transfer{header: header{id: m.GetTransfer()}, document: d})
	}
	h, err := parseHeader(m.GetTransfer(), m.GetZone())
	if err != nil {
		return err
	}
	if !h.base.IsZero() {
		return fmt.Errorf("zone %s: the sibling sent changes only", h.apex)
	}
	return r.begin(&transfer{header: h, assembly: assembly{apex: h.apex, room: r.c.opts.MaxZoneBytes}})
}

func (r *copier) begin(t *transfer) error {
	if r.begun[t.resource()] {
		return fmt.Errorf("%s: the sibling sent it twice", t.resource())
	}
	r.begun[t.resource()] = true
	r.open = t
	return nil
}

func (r *copier) takeCommit(ctx context.Context, t *transfer) error {
	if t.document != nil {
		return r.installDocument(ctx, t.document)
	}
	if has, ok := r.c.opts.Replica.Zone(t.apex); ok && !zone.SerialLess(has.Version.Serial, t.version.Serial) {
		return nil // from a sibling that was asked before
	}
	if t.received > largeTransfer {
		return r.install(ctx, t)
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.installs.Go(func() {
		defer func() { <-r.slots }()
		if err := r.install(ctx, t); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.err = errors.Join(r.err, err)
		}
	})
	return nil
}

// installDocument puts a document in force of a kind that this server does not have: without
// versions nobody can tell which of two is newer. One that is refused does not stop the copy.
func (r *copier) installDocument(ctx context.Context, in *incoming) error {
	d, err := in.document()
	if err != nil {
		return err
	}
	replica := r.c.opts.Replica
	if _, has := replica.Document(d.Kind); has || len(replica.Documents()) >= maxKinds {
		return nil
	}
	err = replica.InstallDocument(context.WithoutCancel(ctx), r.fence, d)
	var stale *StaleEpochError
	var undurable *NotDurableError
	switch {
	case errors.As(err, &stale):
		return fmt.Errorf("installing document %q: %w", d.Kind, err)
	case err != nil && !errors.As(err, &undurable):
		r.c.opts.Log.Info("a sibling's document is refused", "kind", d.Kind, "reason", clip(err.Error()))
	default:
		r.c.update(func(s *State) { s.Documents++ })
	}
	return nil
}

func (r *copier) install(ctx context.Context, t *transfer) error {
	content, err := t.assembly.content()
	if err != nil {
		return err
	}
	if content.Digest() != t.version.Digest {
		return fmt.Errorf("zone %s: %w", t.apex, errDigest)
	}
	err = r.c.opts.Replica.Install(context.WithoutCancel(ctx), r.fence, Installed{Content: content, Version: t.version, Source: t.source, Cluster: t.cluster})
	var undurable *NotDurableError
	if err != nil && !errors.As(err, &undurable) {
		return fmt.Errorf("installing zone %s: %w", t.apex, err)
	}
	r.c.update(func(s *State) { s.Copied++ })
	return nil
}

// finish waits for the installs under way, at the end of the stream.
func (r *copier) finish() error {
	r.installs.Wait()
	if r.offer == nil || r.open != nil {
		return errors.New("the sibling ended before the copy did")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
