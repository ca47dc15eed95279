package dnsserver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"time"
)

const (
	// streamBuffer is what an idle connection holds of memory for reading; longer queries
	// take what they need as they come.
	streamBuffer = 1 << 10
	// keptReplies is what it holds at most for the next replies.
	keptReplies = 4 << 10
	// maxLong is how many connections may bring longer queries at once. Hardly any client does:
	// one more is closed.
	maxLong = 256
	// flushAt is how much of replies is gathered before it is sent, when several queries
	// came at once.
	flushAt = 16 << 10
	// maxUnsent is how many octets of replies may wait for clients before patience ends.
	maxUnsent = 64 << 20
	// shortestMessage is a header.
	shortestMessage = 12
)

// answerAll answers queries over TCP or TLS until the client ends, is idle or misbehaves: a length
// shorter than a header, replies not accepted. Clients pipeline (RFC 7766 §6.2.1.1). Answers come from memory,
// so that none is worth overtaking another: they go out in the order of the queries, those of
// queries that came together in one write, and never wait for a query that is not yet whole.
//
// TLS ends with close_notify if the client takes what it is sent (RFC 8446 §6.1).
func (c *stream) answerAll() {
	all := c.listener.streams
	in := bufio.NewReaderSize(c, streamBuffer)
	var out []byte
	var idle time.Duration
	for {
		waits := !hasMessage(in)
		if waits || len(out) >= flushAt {
			if c.send(out) != nil {
				return
			}
			if out = out[:0]; cap(out) > keptReplies {
				out = nil
			}
		}
		if waits {
			var err error
			if idle, err = all.arm(c); err != nil {
				return
			}
		}
		message, err := all.read(in)
		if err != nil {
			if t, ok := c.Conn.(*tls.Conn); c.send(out) == nil && ok {
				_ = t.CloseWrite() // the connection ends in any case
			}
			return
		}
		out = c.listener.reply(out, message, c.client, idle)
	}
}

// send writes replies within the time that the client has to accept them.
func (c *stream) send(replies []byte) error {
	if len(replies) == 0 {
		return nil
	}
	all := c.listener.streams
	size := int64(cap(replies))
	all.unsent.Add(size)
	defer all.unsent.Add(-size)
	if err := c.tcp.SetWriteDeadline(time.Now().Add(all.patience())); err != nil {
		return err
	}
	_, err := c.Write(replies)
	return err
}

// reply appends the reply to one message with its length, if one is owed. The timeout is what
// clients that ask are told, RFC 7828; 0 for nothing.
func (l *listener) reply(out, message []byte, client netip.Addr, idle time.Duration) []byte {
	const unit, longest = 100 * time.Millisecond, 1<<16 - 1
	x := l.exchanges.get()
	defer l.exchanges.put(x)
	x.responder.scratch.KeepAlive = uint16(min(idle/unit, longest))
	r := x.responder.answer(x.reply[:0], message, client)
	if r == nil {
		return out
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(r)))
	return append(out, r...)
}

// read returns the next message, valid until the next read. What a client announces takes no
// memory before it comes.
func (s *streams) read(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head))
	if size < shortestMessage {
		return nil, errShort
	}
	if 2+size <= in.Size() {
		b, err := in.Peek(2 + size)
		if err != nil {
			return nil, err
		}
		_, err = in.Discard(2 + size) // what was peeked at stays until the next read
		return b[2:], err
	}
	defer s.long.Add(-1)
	if s.long.Add(1) > maxLong {
		return nil, errBusy
	}
	if _, err := in.Discard(2); err != nil {
		return nil, err
	}
	var long bytes.Buffer
	if _, err := io.CopyN(&long, in, int64(size)); err != nil {
		return nil, err
	}
	return long.Bytes(), nil
}

var (
	errShort = errors.New("a message shorter than its header")
	errBusy  = errors.New("too many long messages at once")
)

// hasMessage reports whether a whole message can be read without waiting.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	head, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}
