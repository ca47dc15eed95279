// Package steering decides what a steered name answers to whom: it reads what servers are told of the
// name (steeringpb), puts together what is known of health, overrides and clients' places, and makes
// the ready answers of zone.Steered. It also reckons how long a failover takes and when an old answer
// is gone.
//
// It is pure: state, time, figures and what was decided before are arguments.
package steering
