package control

import (
	"context"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc"
)

// DialPeer makes a connection to a server of the given group, which its certificate must be for. It is opened by its first
// call.
func DialPeer(hostport string, c Credentials, g GroupKey) (*grpc.ClientConn, error) {
	return dial(hostport, dialTLS(c, func(leaf *x509.Certificate) error {
		got, err := CertifiedGroup(leaf)
		if err != nil {
			return err
		}
		if got != g {
			return fmt.Errorf("certificate %q is for group %s, wanted %s", leaf.Subject, got, g)
		}
		return nil
	}))
}

// DialServer makes a connection to an authoritative server of any group. It is opened by its first call.
func DialServer(hostport string, c Credentials) (*grpc.ClientConn, error) {
	return dial(hostport, dialTLS(c, func(leaf *x509.Certificate) error {
		got, err := CertifiedGroup(leaf)
		if err == nil && !got.Authoritative() {
			err = fmt.Errorf("certificate %q is for group %s, wanted one of authoritative servers", leaf.Subject, got)
		}
		return err
	}))
}

// CallerGroup returns the group that the certificate of a call's caller is for.
func CallerGroup(ctx context.Context) (GroupKey, error) { return callerGroup(ctx) }

// Pauses are those between attempts at one peer, longer and longer.
type Pauses struct{ pauses pauses }

// NewPauses begins with the shortest.
func NewPauses() *Pauses { return &Pauses{} }

// Wait waits for the next one; false if ctx ended.
func (p *Pauses) Wait(ctx context.Context) bool { return pause(ctx, p.pauses.next(maxPause, jitter())) }
