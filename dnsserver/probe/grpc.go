package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// grpcProbe is up if the target's health service (grpc.health.v1) says SERVING. The call is made frame by frame and not
// by a client of package grpc, which costs thrice as much for a connection with one call, and more memory while it waits.
type grpcProbe struct {
	dialer   *dialer
	security *security // nil: without TLS
	port     uint16
	name     string // empty: the target's address
	message  []byte
}

func newGRPC(cfg *steeringpb.Grpc, env Env) (*grpcProbe, error) {
	p := &grpcProbe{dialer: newDialer(env), name: cfg.GetServerName()}
	var err error
	if p.port, err = portOf(cfg.GetPort()); err != nil {
		return nil, err
	}
	if !plain(p.name) {
		return nil, fmt.Errorf("%q is no name of a server", p.name)
	}
	m, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: cfg.GetService()})
	if err != nil {
		return nil, err
	}
	p.message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
	if cfg.GetTls() {
		p.security, err = newSecurity(securityOf{
			name:        cfg.GetServerName(),
			authorities: cfg.GetCertificateAuthority(),
			secret:      cfg.GetClientCertificate(),
			skipVerify:  cfg.GetSkipVerify(),
			protocols:   []string{"h2"},
		}, env)
	}
	return p, err
}

func (p *grpcProbe) ask(ctx context.Context, target netip.Addr) Result {
	c, _, result := p.security.dial(ctx, p.dialer, target, p.port)
	if result.Outcome != Up {
		return result
	}
	defer c.Close()
	r := request{
		method: "POST", scheme: "http", host: p.name, path: healthpb.Health_Check_FullMethodName,
		fields: []field{{"content-type", "application/grpc"}, {"te", "trailers"}},
		body:   p.message,
	}
	if p.security != nil {
		r.scheme = "https"
	}
	if r.host == "" {
		r.host = authority(target.String(), p.security != nil, p.port)
	}
	answer, err := exchange2(c, r, true)
	if err != nil {
		return notAnswered(err, "the answer is not gRPC")
	}
	return judgeHealth(answer)
}

// judgeHealth judges the answer to a health check.
func judgeHealth(answer response) Result {
	status := answer.field("grpc-status")
	if status == "" {
		if answer.status != 200 {
			return down(Status, fmt.Sprintf("HTTP %d, wanted gRPC", answer.status))
		}
		return down(Protocol, "the answer is not gRPC")
	}
	code, err := strconv.ParseUint(status, 10, 32)
	switch {
	case err != nil:
		return down(Protocol, "the answer is not gRPC")
	case codes.Code(code) == codes.NotFound:
		return down(NotServing, "gRPC health: the target does not know the service")
	case codes.Code(code) == codes.Unimplemented:
		return down(Status, "gRPC health: the target has no health service")
	case codes.Code(code) != codes.OK:
		return down(Status, "gRPC status "+codes.Code(code).String()+", wanted OK")
	}
	var m healthpb.HealthCheckResponse
	body := answer.body
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) || proto.Unmarshal(body[5:], &m) != nil {
		return down(Protocol, "the answer is not gRPC")
	}
	switch m.GetStatus() {
	case healthpb.HealthCheckResponse_SERVING:
		return up()
	case healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
		return down(NotServing, "gRPC health: the target does not know the service")
	case healthpb.HealthCheckResponse_NOT_SERVING:
		return down(NotServing, "gRPC health NOT_SERVING, wanted SERVING")
	default:
		return down(NotServing, "gRPC health UNKNOWN, wanted SERVING")
	}
}
