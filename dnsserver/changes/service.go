package changes

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes/changespb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// protocol is the version of the messages.
const protocol = 1

const (
	// beat is how long a watcher hears nothing at most, gap how long at least after changes: of many that follow one another
	// the first is told at once, and the others together.
	beat = time.Second
	gap  = 2 * time.Millisecond
	// maxWatchers bounds those of one server, maxOfGroup those of them that are of one group, and so have one certificate.
	maxWatchers = 1024
	maxOfGroup  = 256
	// maxChanges and maxOctets bound one message; of the latter the last change may exceed it.
	maxChanges = 1000
	maxOctets  = 256 << 10
	// MaxAliases bounds those of one change: more are not told.
	MaxAliases = 1000
)

// Service tells watchers what is in a Log.
type Service struct {
	log     *Log
	aliases func(zone.Name) []zone.Name
	logger  logr.Logger

	mu       sync.Mutex
	watchers int
	of       map[control.GroupKey]int // counts these

	changespb.UnimplementedChangesServer
}

// NewService tells of what is in the Log. aliases returns the CNAMEs that lead to a name now, sorted; at most MaxAliases of
// them are told.
func NewService(l *Log, aliases func(zone.Name) []zone.Name, logger logr.Logger) *Service {
	return &Service{log: l, aliases: aliases, logger: logger, of: map[control.GroupKey]int{}}
}

// Register makes s heard. It needs control.ServerOptions.
func (s *Service) Register(r grpc.ServiceRegistrar) { changespb.RegisterChangesServer(r, s) }

// Watchers counts those who are watching.
func (s *Service) Watchers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchers
}

// admit counts a watcher of a group in. The error is a status ResourceExhausted.
func (s *Service) admit(group control.GroupKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.watchers >= maxWatchers:
		return status.Errorf(codes.ResourceExhausted, "%d are watching already", maxWatchers)
	case s.of[group] >= maxOfGroup:
		return status.Errorf(codes.ResourceExhausted, "%d of group %s are watching already", maxOfGroup, group)
	}
	s.watchers++
	s.of[group]++
	return nil
}

// leave counts out who was admitted.
func (s *Service) leave(group control.GroupKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers--
	if s.of[group]--; s.of[group] == 0 {
		delete(s.of, group)
	}
}

// Watch tells one watcher.
func (s *Service) Watch(req *changespb.WatchRequest, stream grpc.ServerStreamingServer[changespb.Batch]) error {
	group, err := control.CallerGroup(stream.Context())
	if err != nil {
		return err
	}
	if req.GetProtocol() != protocol {
		return status.Errorf(codes.FailedPrecondition, "protocol version %d is spoken, this server speaks %d", req.GetProtocol(), protocol)
	}
	if err := s.admit(group); err != nil {
		return err
	}
	defer s.leave(group)
	log := s.logger.V(1).WithValues("group", group.String(), "name", req.GetName())
	log.Info("a watcher of changes has come")
	defer log.Info("a watcher of changes has gone")
	at := cursor{req.GetBoot(), req.GetPosition()}
	silence := time.NewTimer(beat)
	defer silence.Stop()
	for {
		batch, next, wake := s.batch(at)
		at, batch.CaughtUp = next, wake != nil
		if err := stream.Send(batch); err != nil {
			return err
		}
		if wake == nil {
			continue
		}
		silence.Reset(gap)
		select {
		case <-silence.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		silence.Reset(beat)
		select {
		case <-wake:
		case <-silence.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// batch returns the next message for a watcher, and the cursor behind it. wake is nil if there is more.
func (s *Service) batch(at cursor) (*changespb.Batch, cursor, <-chan struct{}) {
	found, next, missed, wake := s.log.since(time.Now(), at, maxChanges)
	b := &changespb.Batch{Missed: missed}
	octets := 0
	for i := range found {
		if octets > maxOctets {
			next, wake = cursor{next.boot, found[i-1].position}, nil
			break
		}
		m := s.encode(&found[i].Change)
		octets += len(m.GetName()) + len(m.GetApex()) + 8*len(m.GetBefore()) + 32
		for _, alias := range m.GetAliases() {
			octets += len(alias) + 2
		}
		b.Changes = append(b.Changes, m)
	}
	b.Boot, b.Position = next.boot, next.position
	return b, next, wake
}

func (s *Service) encode(c *Change) *changespb.Change {
	m := &changespb.Change{
		Name: []byte(c.Name), Apex: []byte(c.Apex), Beneath: c.Beneath,
		Before: c.Before, After: c.After, Serial: c.Serial, At: c.At.UnixMilli(),
	}
	aliases := s.aliases(c.Name)
	for _, alias := range aliases[:min(len(aliases), MaxAliases)] {
		m.Aliases = append(m.Aliases, []byte(alias))
	}
	return m
}
