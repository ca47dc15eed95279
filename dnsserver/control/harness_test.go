package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what must come; nothing waits that long when all is well.
const limit = 30 * time.Second

// bell lets tests wait for conditions: whatever may change one rings.
type bell struct {
	mu   sync.Mutex
	rung chan struct{}
}

func newBell() *bell { return &bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.rung)
	b.rung = make(chan struct{})
}

func (b *bell) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		next := b.rung
		b.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-next:
		case <-timeout.C:
			t.Fatalf("still not: %s", what)
		}
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var serials struct {
	sync.Mutex
	last int64
}

func nextCertSerial() *big.Int {
	serials.Lock()
	defer serials.Unlock()
	serials.last++
	return big.NewInt(serials.last)
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: nextCertSerial(), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) issue(t testing.TB, uris ...*url.URL) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: nextCertSerial(), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: uris, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) credentials(t testing.TB, uris ...*url.URL) Credentials {
	t.Helper()
	cert := a.issue(t, uris...)
	return Credentials{
		Certificate: func() (*tls.Certificate, error) { return &cert, nil },
		Roots:       func() (*x509.CertPool, error) { return a.pool, nil },
	}
}

// memory is a Replica without a disk, with faults to order.
type memory struct {
	bell *bell

	mu         sync.Mutex
	zones      map[zone.Name]Installed
	notOnDisk  map[zone.Name]bool
	fence      Fence
	lost       []zone.Name
	onDurable  func(zone.Name, zone.Version)
	installs   int // that went through
	moved      int // of these: with other content than before
	fault      func(Installed) error
	raiseFault error
	before     func(Installed) // called outside the lock, before every install

	documents         map[string]Document
	documentsBehind   map[string]bool
	lostDocuments     []string
	onDocumentDurable func(string, zone.Digest)
	documentFault     func(Document) error // as fault; called outside the lock
}

func newMemory(b *bell) *memory {
	return &memory{
		bell: b, zones: map[zone.Name]Installed{}, notOnDisk: map[zone.Name]bool{}, documents: map[string]Document{}, documentsBehind: map[string]bool{},
	}
}

func (m *memory) Held() []Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []Held
	for apex, z := range m.zones {
		held = append(held, Held{apex, z.Version, z.Source, z.Cluster, z.Content.Records(), m.notOnDisk[apex]})
	}
	slices.SortFunc(held, func(a, b Held) int { return a.Apex.Compare(b.Apex) })
	return held
}

func (m *memory) Zone(apex zone.Name) (Installed, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	z, ok := m.zones[apex]
	return z, ok
}

func (m *memory) version(apex zone.Name) zone.Version {
	z, _ := m.Zone(apex)
	return z.Version
}

func (m *memory) Install(_ context.Context, f Fence, z Installed) error {
	if m.before != nil {
		m.before(z)
	}
	defer m.bell.ring()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &StaleEpochError{f, m.fence}
	}
	var err error
	if m.fault != nil {
		err = m.fault(z)
	}
	var undurable *NotDurableError
	if err != nil && !errors.As(err, &undurable) {
		return err
	}
	apex := z.Content.Apex()
	m.fence = f
	m.installs++
	if m.zones[apex].Content != z.Content {
		m.moved++
	}
	m.zones[apex] = z
	m.notOnDisk[apex] = err != nil
	return err
}

// heal makes durable what was not.
func (m *memory) heal() {
	m.mu.Lock()
	m.fault = nil
	m.documentFault = nil
	healed := map[zone.Name]zone.Version{}
	for apex, lacking := range m.notOnDisk {
		if lacking {
			healed[apex] = m.zones[apex].Version
			m.notOnDisk[apex] = false
		}
	}
	documents := map[string]zone.Digest{}
	for kind, lacking := range m.documentsBehind {
		if lacking {
			documents[kind] = m.documents[kind].Digest()
			m.documentsBehind[kind] = false
		}
	}
	m.mu.Unlock()
	for apex, v := range healed {
		m.onDurable(apex, v)
	}
	for kind, digest := range documents {
		m.onDocumentDurable(kind, digest)
	}
}

func (m *memory) Remove(_ context.Context, f Fence, apex zone.Name) error {
	defer m.bell.ring()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &StaleEpochError{f, m.fence}
	}
	m.fence = f
	delete(m.zones, apex)
	return nil
}

func (m *memory) Documents() []HeldDocument {
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []HeldDocument
	for _, kind := range slices.Sorted(maps.Keys(m.documents)) {
		held = append(held, HeldDocument{kind, m.documents[kind].Digest(), m.documentsBehind[kind]})
	}
	return held
}

func (m *memory) Document(kind string) (Document, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.documents[kind]
	return d, ok
}

func (m *memory) body(kind string) string {
	d, _ := m.Document(kind)
	return string(d.Body)
}

func (m *memory) InstallDocument(_ context.Context, f Fence, d Document) error {
	defer m.bell.ring()
	m.mu.Lock()
	fault := m.documentFault
	m.mu.Unlock()
	var err error
	if fault != nil {
		err = fault(d)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &StaleEpochError{f, m.fence}
	}
	var undurable *NotDurableError
	if err != nil && !errors.As(err, &undurable) {
		return err
	}
	m.fence = f
	m.documents[d.Kind] = d
	m.documentsBehind[d.Kind] = err != nil
	return err
}

func (m *memory) OnDocumentDurable(f func(string, zone.Digest)) { m.onDocumentDurable = f }

func (m *memory) LostDocuments() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.lostDocuments), func(kind string) bool { _, ok := m.documents[kind]; return ok })
}

func (m *memory) Fence() Fence {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fence
}

func (m *memory) Raise(_ context.Context, f Fence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fence.Admits(f) {
		return &StaleEpochError{f, m.fence}
	}
	var undurable *NotDurableError
	if m.raiseFault == nil || errors.As(m.raiseFault, &undurable) {
		m.fence = f
	}
	return m.raiseFault
}

func (m *memory) OnDurable(f func(zone.Name, zone.Version)) { m.onDurable = f }

func (m *memory) Lost() []zone.Name {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lost []zone.Name
	for _, apex := range m.lost {
		if _, ok := m.zones[apex]; !ok {
			lost = append(lost, apex)
		}
	}
	return lost
}

func (m *memory) counts() (installs, moved int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.installs, m.moved
}

// put fills the replica as if it had installed z long ago.
func (m *memory) put(z Zone, cluster string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zones[z.Content.Apex()] = Installed{z.Content, z.Version, z.Source, cluster}
}

// clock is what Now returns in tests.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// traffic counts what a hub sends.
type traffic struct {
	bell  *bell
	mu    sync.Mutex
	count map[string]int // by kind of message
	bytes int            // of Begin, Chunk and Commit
	most  int            // octets of the largest message
}

func (*traffic) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*traffic) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*traffic) HandleConn(context.Context, stats.ConnStats)                       {}
func (w *traffic) HandleRPC(_ context.Context, s stats.RPCStats) {
	out, ok := s.(*stats.OutPayload)
	if !ok {
		return
	}
	m, ok := out.Payload.(*controlpb.HubMessage)
	if !ok {
		return
	}
	defer w.bell.ring()
	w.mu.Lock()
	defer w.mu.Unlock()
	kind := fmt.Sprintf("%T", m.GetMessage())[len("*controlpb.HubMessage_"):]
	w.count[kind]++
	switch kind {
	case "Begin", "Chunk", "Commit":
		w.bytes += out.WireLength
	}
	w.most = max(w.most, out.WireLength)
}

func (w *traffic) of(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[kind]
}

func (w *traffic) octets() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

func (w *traffic) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count, w.bytes, w.most = map[string]int{}, 0, 0
}

// manager is a hub that listens.
type manager struct {
	*Hub
	addr    string
	traffic *traffic
	stop    func()
}

// world is what the tests of one function share.
type world struct {
	t      *testing.T
	bell   *bell
	ca     *authority
	clock  *clock
	mu     sync.Mutex
	epochs []uint64 // told to OnEpoch
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, bell: newBell(), ca: newAuthority(t), clock: &clock{now: time.Unix(1_700_000_000, 0)}}
}

func (w *world) log() logr.Logger {
	if testing.Verbose() {
		return testr.New(w.t)
	}
	return logr.Discard()
}

func (w *world) seenEpochs() []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.epochs)
}

func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	w.bell.await(w.t, what, holds)
}

const here = "cluster-1"

var group = GroupKey{"dc-a", "authoritative"}

// hub starts a manager that does not lead.
func (w *world) hub(change ...func(*HubOptions)) *manager {
	w.t.Helper()
	opts := HubOptions{
		Log: w.log(), Cluster: here, Now: w.clock.Now,
		OnZone:   func(zone.Name) { w.bell.ring() },
		OnServer: func(ServerID) { w.bell.ring() },
		OnEpoch: func(seen uint64) {
			w.mu.Lock()
			w.epochs = append(w.epochs, seen)
			w.mu.Unlock()
			w.bell.ring()
		},
	}
	for _, f := range change {
		f(&opts)
	}
	m := &manager{Hub: NewHub(opts), traffic: &traffic{bell: w.bell, count: map[string]int{}}}
	m.addr, m.stop = w.listen(w.ca.credentials(w.t, HubURI()), "127.0.0.1:0", func(s *grpc.Server) { m.Register(s) }, grpc.StatsHandler(m.traffic))
	return m
}

// leading starts a manager that leads under epoch 1 and knows all of the zones.
func (w *world) leading(zones ...Zone) *manager {
	w.t.Helper()
	m := w.hub()
	m.Lead(1)
	for _, z := range zones {
		m.Publish(z)
	}
	m.SetComplete()
	return m
}

func (w *world) listen(c Credentials, addr string, register func(*grpc.Server), more ...grpc.ServerOption) (string, func()) {
	w.t.Helper()
	addr, stop, err := serve(c, addr, register, more...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(stop)
	return addr, stop
}

// serve listens until stop is called.
func serve(c Credentials, addr string, register func(*grpc.Server), more ...grpc.ServerOption) (at string, stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(append(ServerOptions(c), more...)...)
	register(s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	stop = sync.OnceFunc(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String(), stop, nil
}

// server is a Client that runs.
type server struct {
	*Client
	*memory
	id   ServerID
	stop func()
}

func (w *world) replica() *memory { return newMemory(w.bell) }

// server starts one that follows the hubs.
func (w *world) server(name string, r *memory, hubs []*manager, change ...func(*ClientOptions)) *server {
	w.t.Helper()
	opts := ClientOptions{
		Credentials: w.ca.credentials(w.t, group.URI()), Name: name, SoftwareVersion: "test", Replica: r, Log: w.log().WithName(name),
		Now: w.clock.Now, OnState: func(State) { w.bell.ring() },
	}
	for _, h := range hubs {
		opts.Hubs = append(opts.Hubs, h.addr)
	}
	for _, f := range change {
		f(&opts)
	}
	c, err := NewClient(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := c.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	stop := func() {
		cancel()
		<-ended
	}
	w.t.Cleanup(stop)
	return &server{c, r, ServerID{group.Datacenter, group.Group, name}, stop}
}

func (s *server) synced() bool { return s.State().Synced && s.State().Hub != "" }

// Content to test with.

func mustName(text string) zone.Name {
	n, err := zone.ParseName(text, "")
	if err != nil {
		panic(err)
	}
	return n
}

// version returns zone apex with so many hosts, of which the first have the address given.
func content(apex string, hosts int, changed map[int]byte) *zone.Content {
	origin := mustName(apex)
	nodes := []zone.Node{zone.NewNode(origin, zone.NewRRset(zone.TypeTXT, 60, []byte("\x04zone")))}
	for i := range hosts {
		owner, err := origin.Child(fmt.Sprintf("h%d", i))
		if err != nil {
			panic(err)
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeA, 60, []byte{10, byte(i >> 8), byte(i), changed[i]})))
	}
	c, err := zone.NewContent(origin, nodes)
	if err != nil {
		panic(err)
	}
	return c
}

var open = zone.GuardPolicy{MinDeletes: 1 << 20, MaxDeletePercent: 100}

func published(c *zone.Content, serial uint32) Zone {
	return Zone{
		Content: c, Version: zone.Version{Serial: serial, Digest: c.Digest()}, Source: "tenant/" + c.Apex().String(), Groups: []GroupKey{group}, Guard: open,
	}
}

func manyZones(count int) []Zone {
	zones := make([]Zone, count)
	for i := range zones {
		zones[i] = published(content(fmt.Sprintf("z%05d.test", i), 1, nil), 1)
	}
	return zones
}
