-- name: start
insert into evaluation (tenant_id, id, suite, suite_digest, status, document, baseline_id, starter_subject, starter_roles,
  request_id, data, started_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: started_by
select id from evaluation where request_id = $1;

-- name: add_cases
insert into evaluation_case (tenant_id, id, evaluation_id, place, repetition)
select $1, c.id, $2, c.place, c.repetition from unnest($3::text[], $4::int[], $5::int[]) as c(id, place, repetition);

-- name: queue_cases
insert into evaluation_lease (tenant_id, case_id) select $1, unnest($2::text[]);

-- name: find
select data from evaluation where id = $1;

-- name: lock
select data from evaluation where id = $1 for update;

-- name: scores
select data from evaluation_case where evaluation_id = $1 and data is not null order by place, repetition;

-- name: every
select e.data, (select count(*) from evaluation_case c where c.evaluation_id = e.id and c.data is not null) as finished
from evaluation e
where ($1::text = '' or e.suite = $1) and ($2::timestamptz is null or (e.started_at, e.id) < ($2, $3))
order by e.started_at desc, e.id desc
limit $4;

-- name: work
select c.evaluation_id, c.place, c.repetition, e.document, e.starter_subject, e.starter_roles, e.baseline_id, e.status
from evaluation_case c join evaluation e on e.tenant_id = c.tenant_id and e.id = c.evaluation_id
where c.id = $1;

-- name: held
select 1 from evaluation_lease
where case_id = $1 and owner = $2 and fence = $3 and expires_at > clock_timestamp()
for update;

-- name: finish_case
update evaluation_case set session_id = $2, passed = $3, coverage_score = $4, novelty_score = $5, coherence_score = $6,
  rule_violations_count = $7, data = $8
where id = $1;

-- name: unfinished
select count(*) from evaluation_case where evaluation_id = $1 and data is null;

-- name: close
update evaluation set status = $2, ended_at = $3, regression_score = $4, data = $5 where id = $1;

-- name: release
update evaluation_lease set owner = null, ready = false, expires_at = '-infinity' where case_id = $1;

-- name: claim
with waiting as (
  select tenant_id, case_id, ready_at, row_number() over (partition by tenant_id order by ready_at, case_id) as place
  from (
    select tenant_id, case_id, ready_at from evaluation_lease
    where ready and expires_at < clock_timestamp()
    order by ready_at
    limit 2000
  ) oldest
), chosen as (
  select l.tenant_id, l.case_id
  from evaluation_lease l join waiting w using (tenant_id, case_id)
  where l.ready and l.expires_at < clock_timestamp()
  order by w.place, w.ready_at
  limit $3
  for update of l skip locked
)
update evaluation_lease l
set owner = $1, fence = fence + 1, expires_at = clock_timestamp() + $2::interval, tries = tries + 1
from chosen c
where l.tenant_id = c.tenant_id and l.case_id = c.case_id
returning l.tenant_id, l.case_id, l.owner, l.fence, l.tries;

-- name: renew
update evaluation_lease set expires_at = clock_timestamp() + $2::interval
where owner = $1 and case_id = any($3::text[]) and expires_at > clock_timestamp()
returning case_id;

-- name: give_back
update evaluation_lease set owner = null, expires_at = '-infinity', tries = greatest(tries - 1, 0)
where tenant_id = $1 and case_id = $2 and fence = $3;
