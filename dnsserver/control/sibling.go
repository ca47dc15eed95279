package control

import (
	"context"
	"iter"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Sibling lets servers of the same datacenter and group copy this server's zones and
// documents, when they start empty and no hub is there.
type Sibling struct {
	controlpb.UnimplementedSiblingServer
	replica     Replica
	credentials Credentials
	copies      chan struct{} // one element for each copy under way
}

// maxCopies bounds how many siblings copy at once.
const maxCopies = 4

// NewSibling serves what the replica holds to those who have a certificate for the same
// group as the credentials.
func NewSibling(r Replica, c Credentials) *Sibling {
	return &Sibling{replica: r, credentials: c, copies: make(chan struct{}, maxCopies)}
}

// Register makes s serve copies. s needs ServerOptions.
func (s *Sibling) Register(r grpc.ServiceRegistrar) { controlpb.RegisterSiblingServer(r, s) }

// Copy serves one copy.
func (s *Sibling) Copy(req *controlpb.CopyRequest, stream grpc.ServerStreamingServer[controlpb.CopyMessage]) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	if req.GetProtocol() != ProtocolVersion {
		return status.Errorf(codes.FailedPrecondition, "protocol version %d is asked for, this server speaks %d", req.GetProtocol(), ProtocolVersion)
	}
	select {
	case s.copies <- struct{}{}:
		defer func() { <-s.copies }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d siblings are copying already", maxCopies)
	}
	apexes, err := s.wanted(req)
	if err != nil {
		return err
	}
	var documents []HeldDocument
	if req.GetDocuments() {
		documents = s.replica.Documents()
	}
	fence := s.replica.Fence()
	offer := &controlpb.Offer{Epoch: fence.Epoch, Cluster: fence.Cluster, Zones: uint32(len(apexes)), Documents: uint32(len(documents))}
	if err := stream.Send(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Offer{Offer: offer}}); err != nil {
		return err
	}
	id := uint64(0)
	for _, d := range documents {
		id++
		if err := s.sendDocument(stream, id, d.Kind); err != nil {
			return err
		}
	}
	for _, apex := range apexes {
		id++
		if err := s.sendZone(stream, id, apex); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sibling) check(ctx context.Context) error {
	caller, err := callerGroup(ctx)
	if err != nil {
		return err
	}
	leaf, err := s.credentials.leaf()
	if err != nil {
		return status.Errorf(codes.Unavailable, "own certificate: %v", err)
	}
	own, err := CertifiedGroup(leaf)
	if err != nil {
		return status.Errorf(codes.Unavailable, "own certificate: %v", err)
	}
	if caller != own {
		return status.Errorf(codes.PermissionDenied, "a server of group %s may not copy from one of %s", caller, own)
	}
	return nil
}

func (s *Sibling) wanted(req *controlpb.CopyRequest) ([]zone.Name, error) {
	var apexes []zone.Name
	for _, b := range req.GetApexes() {
		apex, err := apexOf(b)
		if err != nil {
			return nil, malformed("%v", err)
		}
		apexes = append(apexes, apex)
	}
	if len(apexes) > 0 || req.GetNoZones() {
		return apexes, nil
	}
	for _, h := range s.replica.Held() {
		apexes = append(apexes, h.Apex)
	}
	return apexes, nil
}

// sendDocument sends a document as it is now; nothing if it is gone.
func (s *Sibling) sendDocument(stream grpc.ServerStreamingServer[controlpb.CopyMessage], id uint64, kind string) error {
	d, ok := s.replica.Document(kind)
	if !ok {
		return nil
	}
	return send(stream, &controlpb.Begin{Transfer: id, Resource: documentMessage(d, d.Digest())}, slices.Values(documentChunks(d.Body)))
}

// sendZone sends a zone as it is now; nothing if it is gone.
func (s *Sibling) sendZone(stream grpc.ServerStreamingServer[controlpb.CopyMessage], id uint64, apex zone.Name) error {
	z, ok := s.replica.Zone(apex)
	if !ok {
		return nil
	}
	return send(stream, &controlpb.Begin{Transfer: id, Resource: &controlpb.Begin_Zone{Zone: zoneMessage(apex, z)}}, chunks(wholeZone(z.Content), chunkSize))
}

// send sends one transfer.
func send(stream grpc.ServerStreamingServer[controlpb.CopyMessage], begin *controlpb.Begin, parts iter.Seq[[]byte]) error {
	id := begin.GetTransfer()
	if err := stream.Send(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Begin{Begin: begin}}); err != nil {
		return err
	}
	for part := range parts {
		chunk := &controlpb.Chunk{Transfer: id, Nodes: part}
		if err := stream.Send(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return stream.Send(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Commit{Commit: &controlpb.Commit{Transfer: id}}})
}
