package steering

import "github.com/fingerpost-dns/fingerpost/dnsserver/zone"

// shared has all pools share the clients: by weight, in turn or by a hash of the client.
type shared struct{ pick zone.Pick }

func (s shared) choose(_ int, of []option, _ *Remembered) choice { return choice{s.pick, of} }
