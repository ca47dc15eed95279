package control

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// GroupKey names a server group of a datacenter. Both are DNS labels in lower case; groups that are none of authoritative
// servers are several labels with dots between, so that they are nobody's sibling.
type GroupKey struct{ Datacenter, Group string }

// Authoritative reports whether the group is one of authoritative servers.
func (g GroupKey) Authoritative() bool { return !strings.Contains(g.Group, ".") }

func (g GroupKey) String() string { return g.Datacenter + "/" + g.Group }

// ServerID names a server. Datacenter and group are what its certificate says, Name is what
// it says itself.
type ServerID struct{ Datacenter, Group, Name string }

// GroupKey returns the group that the server belongs to.
func (id ServerID) GroupKey() GroupKey { return GroupKey{id.Datacenter, id.Group} }

func (id ServerID) String() string { return id.Datacenter + "/" + id.Group + "/" + id.Name }

// Compare orders servers by datacenter, group and name.
func (id ServerID) Compare(o ServerID) int {
	return cmp.Or(cmp.Compare(id.Datacenter, o.Datacenter), cmp.Compare(id.Group, o.Group), cmp.Compare(id.Name, o.Name))
}

const uriScheme = "fingerpost"

// URI is the URI SAN of the certificates of the group's servers:
// fingerpost://datacenter/<datacenter>/group/<group>.
func (g GroupKey) URI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: "datacenter", Path: "/" + g.Datacenter + "/group/" + g.Group}
}

// HubURI is the URI SAN of the hub's certificate: fingerpost://hub.
func HubURI() *url.URL { return &url.URL{Scheme: uriScheme, Host: "hub"} }

// ParseGroupURI reads what GroupKey.URI makes.
func ParseGroupURI(u *url.URL) (GroupKey, error) {
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if len(parts) != 3 || parts[1] != "group" {
		return GroupKey{}, fmt.Errorf("%s is not of the form %s", u, GroupKey{"<datacenter>", "<group>"}.form())
	}
	g := GroupKey{Datacenter: parts[0], Group: parts[2]}
	if !isLabel(g.Datacenter) || !isGroup(g.Group) || u.String() != g.URI().String() {
		return GroupKey{}, fmt.Errorf("%s is not of the form %s", u, GroupKey{"<datacenter>", "<group>"}.form())
	}
	return g, nil
}

// form is URI without escapes.
func (g GroupKey) form() string {
	return uriScheme + "://datacenter/" + g.Datacenter + "/group/" + g.Group
}

// isLabel reports whether s is a DNS label in lower case (RFC 1123 §2.1).
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isGroup reports whether s is one DNS label or more, with dots between.
func isGroup(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return len(s) <= 253
}

// isServerName reports whether a server may call itself so: printable ASCII without spaces
// and slashes, up to 253 octets.
func isServerName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '/' {
			return false
		}
	}
	return true
}

// ownURI returns the one URI SAN of the certificate that is in Fingerpost's scheme.
func ownURI(leaf *x509.Certificate) (*url.URL, error) {
	var found *url.URL
	for _, u := range leaf.URIs {
		if u.Scheme != uriScheme {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("certificate %q has more than one URI SAN %s://", leaf.Subject, uriScheme)
		}
		found = u
	}
	if found == nil {
		return nil, fmt.Errorf("certificate %q has no URI SAN %s", leaf.Subject, GroupKey{"<datacenter>", "<group>"}.form())
	}
	return found, nil
}

// CertifiedGroup returns the group that a server's certificate was made for.
func CertifiedGroup(leaf *x509.Certificate) (GroupKey, error) {
	u, err := ownURI(leaf)
	if err != nil {
		return GroupKey{}, err
	}
	g, err := ParseGroupURI(u)
	if err != nil {
		return GroupKey{}, fmt.Errorf("certificate %q: %w", leaf.Subject, err)
	}
	return g, nil
}

// callerAddress returns where a call comes from; nil: not known.
func callerAddress(ctx context.Context) net.Addr {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}

// callerGroup returns the group of the server at the other end of a call. The error is a
// status PermissionDenied.
func callerGroup(ctx context.Context) (GroupKey, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return GroupKey{}, status.Error(codes.PermissionDenied, "caller is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return GroupKey{}, status.Errorf(codes.PermissionDenied, "%s has shown no verified certificate", p.Addr)
	}
	g, err := CertifiedGroup(info.State.VerifiedChains[0][0])
	if err != nil {
		return GroupKey{}, status.Errorf(codes.PermissionDenied, "%s: %v", p.Addr, err)
	}
	return g, nil
}
