// What the rows of tracks.cc run, one file each.
#pragma once

#include "claims/tracks.h"

namespace kedge {

void check_parity(const Claim& claim);
void run_parity(std::span<const TrackJob> jobs, const TrackContext& context);
void check_routing(const Claim& claim);
void run_routing(std::span<const TrackJob> jobs, const TrackContext& context);
void check_external(const Claim& claim);
void run_external(std::span<const TrackJob> jobs, const TrackContext& context);
void check_speed(const Claim& claim);
void run_speed(std::span<const TrackJob> jobs, const TrackContext& context);
void check_mcqsmoe_parity(const Claim& claim);
void run_mcqsmoe_parity(std::span<const TrackJob> jobs, const TrackContext& context);
void check_mcqsmoe_quality(const Claim& claim);
void run_mcqsmoe_quality(std::span<const TrackJob> jobs, const TrackContext& context);
void check_mcqsmoe_speed(const Claim& claim);
void run_mcqsmoe_speed(std::span<const TrackJob> jobs, const TrackContext& context);
void check_mnist(const Claim& claim);
void run_mnist(std::span<const TrackJob> jobs, const TrackContext& context);

}  // namespace kedge
