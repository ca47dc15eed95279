package zone

import (
	"encoding/binary"
	"net/netip"

	"github.com/dchest/siphash"
)

const (
	clientCookieSize = 8 // RFC 7873 §4.1
	minServerCookie  = 8 // RFC 7873 §4.2
	maxServerCookie  = 32
	serverCookieSize = 16 // of ours, RFC 9018 §4

	cookieVersion = 1
	// RFC 9018 §4.3, in seconds.
	cookieRenewed = 30 * 60
	cookieOldest  = 60 * 60
	cookieNewest  = -5 * 60
)

// Cookie is what a query's COOKIE option says of its client.
type Cookie uint8

const (
	// NoCookie means that the client has sent none, or the server makes none.
	NoCookie Cookie = iota
	// ClientCookie means that it has no server cookie yet.
	ClientCookie
	// BadCookie means that its server cookie is none that this server would have made, or too old.
	BadCookie
	// GoodCookie means that the client gets what is sent to its address.
	GoodCookie
)

// answerCookie returns what the cookie of the query, which has size octets and comes from client,
// is worth at a time in Unix seconds, and writes over it what the reply has: the client cookie and
// a server cookie, the query's or a new one.
func answerCookie(cookie *[clientCookieSize + maxServerCookie]byte, size int, secrets [][16]byte, client netip.Addr, now int64) Cookie {
	var in cookieInput
	inSize := in.begin(client)
	copy(in[:], cookie[:clientCookieSize])
	found := ClientCookie
	if size > clientCookieSize {
		found = BadCookie
		server := cookie[clientCookieSize:size]
		if len(server) == serverCookieSize && server[0] == cookieVersion {
			copy(in[clientCookieSize:], server[:8]) // reserved bits are what they are
			hash := binary.LittleEndian.Uint64(server[8:])
			age := int32(uint32(now) - binary.BigEndian.Uint32(server[4:])) // by RFC 1982
			for i := range secrets {
				if age > cookieOldest || age < cookieNewest || in.hash(inSize, &secrets[i]) != hash {
					continue
				}
				if i == 0 && age <= cookieRenewed {
					return GoodCookie
				}
				found = GoodCookie
				break
			}
		}
	}
	server := cookie[clientCookieSize : clientCookieSize+serverCookieSize]
	binary.BigEndian.PutUint32(server, cookieVersion<<24)
	binary.BigEndian.PutUint32(server[4:], uint32(now))
	copy(in[clientCookieSize:], server[:8])
	binary.LittleEndian.PutUint64(server[8:], in.hash(inSize, &secrets[0]))
	return found
}

// cookieInput is what the hash of a server cookie is made of (RFC 9018 §4.4): client cookie, the
// first half of the server cookie, the client's address.
type cookieInput [clientCookieSize + 8 + 16]byte

// begin writes the address and returns the size of the whole.
func (in *cookieInput) begin(client netip.Addr) int {
	at := in[clientCookieSize+8:]
	if client.Is4() {
		a := client.As4()
		return clientCookieSize + 8 + copy(at, a[:])
	}
	a := client.As16()
	return clientCookieSize + 8 + copy(at, a[:])
}

func (in *cookieInput) hash(size int, secret *[16]byte) uint64 {
	return siphash.Hash(binary.LittleEndian.Uint64(secret[:8]), binary.LittleEndian.Uint64(secret[8:]), in[:size])
}
