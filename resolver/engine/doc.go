// Package engine renders the configuration of recursive servers from one vocabulary that is common to all products. It is
// pure: what files say follows from a Config alone, same input same bytes. What a product can't do is returned by name and
// reason, never left out in silence.
package engine
