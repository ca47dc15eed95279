package controllers

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// CookieSecret is the name of the Secret with the secrets of the DNS cookies (RFC 9018) of a server group. The groups of
// that name in all datacenters share it, as docs/adr/0007-cookie-secrets.md says.
func CookieSecret(group string) string { return "fingerpost-cookies." + group }

const (
	// cookieSecretSize is the key length of SipHash-2-4 (RFC 9018 §4.4).
	cookieSecretSize = 16
	// cookieLife is how long a cookie is good (RFC 9018 §4.3), and so how long its secret is accepted once there is another.
	cookieLife = time.Hour
	// cookiePatience is how long the next secret waits for servers that do not have it, at most.
	cookiePatience = time.Hour
	// DefaultCookieRotation is how long a secret makes cookies.
	DefaultCookieRotation = 24 * time.Hour
)

// cookieSecrets are those of one group. Servers must accept a secret before any makes cookies of it: the next one is
// given to all of them first, and only then takes the place of the current one.
type cookieSecrets struct {
	current, next, previous              []byte    // nil: there is none
	currentSince, nextSince, previousEnd time.Time // zero with nil
}

// inOrder is what servers get: the first makes cookies, all are accepted.
func (c cookieSecrets) inOrder() [][]byte {
	var all [][]byte
	for _, s := range [][]byte{c.current, c.next, c.previous} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// advance takes the steps that are due. everywhere says that all servers have the next secret; fresh makes one. After
// steps were taken it is to be called again when servers had time to take what is new.
func (c cookieSecrets) advance(now time.Time, rotation time.Duration, everywhere bool, fresh func() []byte) (after cookieSecrets, steps string) {
	note := func(step string) {
		if steps != "" {
			steps += ", "
		}
		steps += step
	}
	if c.current == nil {
		c = cookieSecrets{current: fresh(), currentSince: now}
		note("made the first secret")
	}
	if c.next != nil && (everywhere || now.Sub(c.nextSince) >= min(cookiePatience, rotation)) {
		c.previous, c.previousEnd = c.current, now.Add(cookieLife)
		c.current, c.currentSince = c.next, now
		c.next, c.nextSince = nil, time.Time{}
		note("the next secret makes cookies")
	}
	if c.previous != nil && !now.Before(c.previousEnd) {
		c.previous, c.previousEnd = nil, time.Time{}
		note("the previous secret is accepted no more")
	}
	if c.next == nil && now.Sub(c.currentSince) >= rotation {
		c.next, c.nextSince = fresh(), now
		note("the next secret is accepted")
	}
	return c, steps
}

// due is when advance has something to do again, if servers do not have the next secret before.
func (c cookieSecrets) due(rotation time.Duration) time.Time {
	due := c.currentSince.Add(rotation)
	if c.next != nil {
		due = c.nextSince.Add(min(cookiePatience, rotation))
	}
	if c.previous != nil {
		due = earlier(due, c.previousEnd)
	}
	return due
}

// Keys of the Secret. Times are in RFC 3339.
const (
	cookieCurrent      = "current"
	cookieNext         = "next"
	cookiePrevious     = "previous"
	cookieCurrentSince = "current-since"
	cookieNextSince    = "next-since"
	cookiePreviousEnd  = "previous-until"
)

// parseCookieSecrets reads the data of a Secret. What can't be used is left out: with other secrets, clients get other
// cookies, and nothing worse happens. Times ahead of now, which a wrong clock may have left, count as now.
func parseCookieSecrets(data map[string][]byte, now time.Time) cookieSecrets {
	var c cookieSecrets
	read := func(key, timeKey string) ([]byte, time.Time) {
		at, err := time.Parse(time.RFC3339, string(data[timeKey]))
		if len(data[key]) != cookieSecretSize || err != nil {
			return nil, time.Time{}
		}
		return bytes.Clone(data[key]), at
	}
	c.current, c.currentSince = read(cookieCurrent, cookieCurrentSince)
	c.next, c.nextSince = read(cookieNext, cookieNextSince)
	c.previous, c.previousEnd = read(cookiePrevious, cookiePreviousEnd)
	if c.current == nil {
		return cookieSecrets{}
	}
	c.currentSince = earlier(c.currentSince, now)
	if c.next != nil {
		c.nextSince = earlier(c.nextSince, now)
	}
	if c.previous != nil {
		c.previousEnd = earlier(c.previousEnd, now.Add(cookieLife))
	}
	return c
}

func (c cookieSecrets) write(data map[string][]byte) {
	for _, each := range []struct {
		key, timeKey string
		secret       []byte
		at           time.Time
	}{
		{cookieCurrent, cookieCurrentSince, c.current, c.currentSince},
		{cookieNext, cookieNextSince, c.next, c.nextSince},
		{cookiePrevious, cookiePreviousEnd, c.previous, c.previousEnd},
	} {
		if each.secret == nil {
			delete(data, each.key)
			delete(data, each.timeKey)
			continue
		}
		data[each.key], data[each.timeKey] = each.secret, []byte(each.at.UTC().Format(time.RFC3339))
	}
}

// cookieKeeper keeps the Secrets of cookies.
type cookieKeeper struct {
	CertificateIssuer // for reading and writing Secrets
	rotation          time.Duration
	held              map[string]heldCookies // by group, as read last
}

type heldCookies struct {
	secret  *corev1.Secret
	secrets cookieSecrets
	read    time.Time
}

// secrets returns those of a group: from memory, if they were read within secretCheck.
func (k *cookieKeeper) secrets(ctx context.Context, group string, now time.Time) (cookieSecrets, error) {
	if h, ok := k.held[group]; ok && now.Sub(h.read) < secretCheck {
		return h.secrets, nil
	}
	s, err := k.read(ctx, CookieSecret(group))
	if err != nil {
		return k.held[group].secrets, err
	}
	k.remember(group, s, now)
	return k.held[group].secrets, nil
}

func (k *cookieKeeper) remember(group string, s *corev1.Secret, now time.Time) {
	if k.held == nil {
		k.held = map[string]heldCookies{}
	}
	k.held[group] = heldCookies{s, parseCookieSecrets(s.Data, now), now}
}

// forget has secrets of a group read again the next time.
func (k *cookieKeeper) forget(group string) {
	h := k.held[group]
	h.read = time.Time{}
	k.held[group] = h
}

// advance takes the steps that are due with the secrets of a group, which were read before, and writes them.
// It returns what steps were taken, "" for none.
func (k *cookieKeeper) advance(ctx context.Context, group string, everywhere bool, now time.Time) (steps string, err error) {
	held := k.held[group]
	next, steps := held.secrets.advance(now, k.rotation, everywhere, newCookieSecret)
	if steps == "" {
		return "", nil
	}
	want := held.secret.DeepCopy()
	if want.ResourceVersion == "" {
		want.Type = corev1.SecretTypeOpaque
	}
	metav1.SetMetaDataLabel(&want.ObjectMeta, render.LabelGroup, group)
	setData(want, nil)
	next.write(want.Data)
	if _, err := k.CertificateIssuer.write(ctx, held.secret, want); err != nil {
		k.forget(group)
		return "", fmt.Errorf("cookies of server group %s: %w", group, err)
	}
	k.remember(group, want, now)
	return steps, nil
}

func newCookieSecret() []byte {
	secret := make([]byte, cookieSecretSize)
	_, _ = rand.Read(secret) // never fails
	return secret
}
