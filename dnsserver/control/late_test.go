package control

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

func TestAServerThatSaysNothingIsNotWaitedFor(t *testing.T) {
	hello := &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Hello{Hello: &controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Epoch: 2, Cluster: here}}}
	tests := map[string]struct {
		epoch uint64 // of the hub
		say   []*controlpb.ServerMessage
		after time.Duration
		text  string
	}{
		"no Hello":                       {2, nil, helloPatience, "no Hello"},
		"no list of zones":               {2, []*controlpb.ServerMessage{hello}, heldPatience, "not listed"},
		"the hub gets no higher epoch":   {1, []*controlpb.ServerMessage{hello}, heldPatience, "not welcomed"},
		"everything, and nothing to ask": {2, []*controlpb.ServerMessage{hello, {Message: &controlpb.ServerMessage_Held{Held: &controlpb.Held{Last: true}}}}, 0, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := NewHub(HubOptions{Cluster: here, Log: logr.Discard()})
				h.Lead(test.epoch)
				p, cancel := newPipe(t.Context(), group)
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- h.Sync(p) }()
				go func() {
					for {
						select {
						case <-p.down:
						case <-p.ctx.Done():
							return
						}
					}
				}()
				for _, m := range test.say {
					p.up <- m
				}
				start := time.Now()
				select {
				case err := <-ended:
					if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), test.text) || time.Since(start) != test.after {
						t.Errorf("after %s: %v", time.Since(start), err)
					}
				case <-time.After(time.Hour):
					if test.after != 0 {
						t.Error("it is waited for for ever")
					}
				}
			})
		})
	}
}

func TestAServerWhoseDiskDoesNotTakeTheEpochGoesOnInMemory(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	r.raiseFault = &NotDurableError{errors.New("disk full")}
	s := w.server("one", r, []*manager{w.leading(published(content("test", 1, nil), 1))})
	w.await("it is synced", s.synced)
}

func TestAServerThatCannotTakeTheEpochTakesNothing(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	r.raiseFault = errors.New("disk on fire")
	s := w.server("one", r, []*manager{w.leading(published(content("test", 1, nil), 1))})
	w.await("it says why", func() bool { return strings.Contains(s.State().LastError, "raising the epoch to 1: disk on fire") })
	if len(s.Held()) != 0 {
		t.Error("it has installed something")
	}
}

func TestAWelcomeOfAnEpochThatWasOvertakenIsRefused(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	s := &script{to: make(chan *controlpb.HubMessage), from: make(chan *controlpb.ServerMessage, 100)}
	m := &manager{}
	m.addr = w.serveScript(s)
	server := w.server("one", r, []*manager{m})
	if s.recv(t).GetHello() == nil {
		t.Fatal("no Hello")
	}
	if err := r.Raise(t.Context(), Fence{9, here}); err != nil { // between Hello and Welcome
		t.Fatal(err)
	}
	s.say(1, &controlpb.Welcome{Cluster: here})
	if nack := s.recv(t).GetNack(); nack.GetReason() != controlpb.Nack_STALE_EPOCH || nack.GetEpoch() != 9 {
		t.Errorf("answered by %v", nack)
	}
	w.await("the stream has ended", func() bool { return strings.Contains(server.State().LastError, "stale") })
}
