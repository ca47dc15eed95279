package probe

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func grpcServer(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) uint32 {
	t.Helper()
	l, port := listen(t, "127.0.0.1")
	s := grpc.NewServer(options...)
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return uint32(port)
}

func TestGRPC(t *testing.T) {
	a := newAuthority(t)
	healthy := func(s *grpc.Server) {
		h := health.NewServer()
		h.SetServingStatus("bad", healthpb.HealthCheckResponse_NOT_SERVING)
		h.SetServingStatus("new", healthpb.HealthCheckResponse_UNKNOWN)
		healthpb.RegisterHealthServer(s, h)
	}
	names := func(want string) grpc.ServerOption {
		return grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if m, _ := metadata.FromIncomingContext(ctx); len(m[":authority"]) != 1 || m[":authority"][0] != want {
				return nil, status.Errorf(codes.InvalidArgument, "evil words of %v", m[":authority"])
			}
			return h(ctx, r)
		})
	}
	port := grpcServer(t, healthy)
	secure := grpcServer(t, healthy, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{a.issue(-day, day)}})), names("app.pay.bank"))
	for name, c := range map[string]struct {
		cfg  *steeringpb.Grpc
		want string
	}{
		"SERVING is up":                         {&steeringpb.Grpc{Port: port}, "Up"},
		"NOT_SERVING is down":                   {&steeringpb.Grpc{Port: port, Service: "bad"}, "Down: gRPC health NOT_SERVING, wanted SERVING"},
		"UNKNOWN is down":                       {&steeringpb.Grpc{Port: port, Service: "new"}, "Down: gRPC health UNKNOWN, wanted SERVING"},
		"so is a service that is not there":     {&steeringpb.Grpc{Port: port, Service: "none"}, "Down: gRPC health: the target does not know the service"},
		"so is a target without health service": {&steeringpb.Grpc{Port: grpcServer(t, func(*grpc.Server) {})}, "Down: gRPC health: the target has no health service"},
		"over TLS with a name":                  {&steeringpb.Grpc{Port: secure, Tls: true, ServerName: "app.pay.bank", CertificateAuthority: a.pem}, "Up"},
		"an error of the target is down":        {&steeringpb.Grpc{Port: secure, Tls: true, CertificateAuthority: a.pem}, "Down: gRPC status InvalidArgument, wanted OK"},
		"the certificate is checked":            {&steeringpb.Grpc{Port: secure, Tls: true, ServerName: "app.pay.bank"}, "Down: certificate signed by an unknown authority"},
		"unless told not to":                    {&steeringpb.Grpc{Port: secure, Tls: true, ServerName: "app.pay.bank", SkipVerify: true}, "Up"},
		"TLS where there is none is down":       {&steeringpb.Grpc{Port: port, Tls: true}, "Down: the answer is not TLS"},
		"a closed port is down":                 {&steeringpb.Grpc{Port: uint32(closedPort(t))}, "Down: connection refused"},
		"a web server without HTTP/2 is down":   {&steeringpb.Grpc{Port: uint32(webServer(t, http.NotFoundHandler(), nil))}, "Down: the answer is not gRPC"},
		"a web server with HTTP/2 is down":      {&steeringpb.Grpc{Port: uint32(webServer(t, http.NotFoundHandler(), &tls.Config{Certificates: []tls.Certificate{a.issue(-day, day)}})), Tls: true, SkipVerify: true}, "Down: HTTP 404, wanted gRPC"},
		"a web server that is happy is down": {&steeringpb.Grpc{Port: uint32(webServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
			&tls.Config{Certificates: []tls.Certificate{a.issue(-day, day)}})), Tls: true, SkipVerify: true}, "Down: the answer is not gRPC"},
	} {
		t.Run(name, func(t *testing.T) {
			p := probeOf(late)
			p.Type = &steeringpb.Probe_Grpc{Grpc: c.cfg}
			is(t, ask(t, p, anywhere(), localhost), c.want)
		})
	}
	t.Run("a target that says nothing is timed out", func(t *testing.T) {
		p := probeOf(soon)
		p.Type = &steeringpb.Probe_Grpc{Grpc: &steeringpb.Grpc{Port: uint32(blackhole(t))}}
		is(t, ask(t, p, anywhere(), localhost), "Down: connected, but no answer within 150ms")
	})
	t.Run("without a name the address is the authority", func(t *testing.T) {
		l, port := listen(t, "127.0.0.1")
		s := grpc.NewServer(names(l.Addr().(*net.TCPAddr).String()))
		healthy(s)
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		p := probeOf(late)
		p.Type = &steeringpb.Probe_Grpc{Grpc: &steeringpb.Grpc{Port: uint32(port)}}
		is(t, ask(t, p, anywhere(), localhost), "Up")
		s.Stop()
		<-done
	})
}
