package health

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// CheckID names one probe of one address. It is equal at all servers, whichever records and HealthProbes it comes from.
type CheckID [16]byte

func (id CheckID) String() string { return hex.EncodeToString(id[:]) }

// NewCheckID returns the first 16 octets of the SHA-256 over the probe's encoding, without its source, and the address.
func NewCheckID(p *steeringpb.Probe, address string) CheckID {
	anonymous := proto.CloneOf(p)
	anonymous.Source = ""
	octets, err := proto.MarshalOptions{Deterministic: true}.Marshal(anonymous)
	if err != nil { // strings that are not UTF-8: such a message can't have come from anywhere
		octets = []byte(err.Error())
	}
	h := sha256.New()
	h.Write(octets)
	h.Write([]byte{0})
	h.Write([]byte(address))
	return CheckID(h.Sum(nil))
}

// Check is one probe of one address: what a server runs once, for all records that want it.
type Check struct {
	ID      CheckID
	Probe   *steeringpb.Probe // never Calculated; not to be changed
	Address string            // address, or absolute name, to ask
}
