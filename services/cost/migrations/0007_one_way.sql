-- One way into roll-ups for all entries, roll-ups by team and user, and less to do for a lease and a settlement taken alone.

-- What is settled meanwhile waits; in the order in which a settlement takes these.
lock table cost_event, lease, budget_counter, cost_fresh, cost_hour, cost_day in access exclusive mode;
alter table cost_event no force row level security;
alter table cost_fresh no force row level security;
alter table cost_hour no force row level security;
alter table cost_day no force row level security;
select roll_up(tenant_id) from (select distinct tenant_id from cost_fresh) fresh;

-- A check's text is read anew by each statement, which took a tenth of a settlement: the one that matters stays. Tokens below
-- zero are refused before they are priced.
alter table cost_event
  drop constraint cost_event_tokens_input_check,
  drop constraint cost_event_tokens_output_check,
  drop constraint cost_event_attempt_check;
alter table lease drop constraint lease_micros_usd_check;

-- When the key began with the tenant, whether a lease read one counter or all of the tenant's was up to the statistics.
alter table budget_counter drop constraint budget_counter_pkey, add primary key (id, tenant_id);

-- Sums by who spent.
alter table cost_fresh add column team text not null default '', add column user_id text not null default '';
create table person_hour (
  tenant_id text not null,
  hour timestamptz not null,
  team text not null,
  user_id text not null,
  entries bigint not null,
  estimated bigint not null,
  tokens_input bigint not null,
  tokens_output bigint not null,
  tokens_cached_input bigint not null,
  tokens_reasoning bigint not null,
  cost_micros_usd bigint not null,
  primary key (tenant_id, hour, team, user_id)
) with (fillfactor = 70);
create table person_day (like person_hour including storage) with (fillfactor = 70);
alter table person_day rename column hour to day;
alter table person_day add primary key (tenant_id, day, team, user_id);

insert into person_hour
select tenant_id, date_trunc('hour', created_at, 'UTC'), team, user_id, count(*), count(*) filter (where estimated),
  sum(tokens_input), sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from cost_event group by 1, 2, 3, 4 order by 2;
insert into person_day
select tenant_id, date_trunc('day', hour, 'UTC'), team, user_id, sum(entries), sum(estimated), sum(tokens_input),
  sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from person_hour group by 1, 2, 3, 4 order by 2;

do $$
declare
  name text;
begin
  foreach name in array array['person_hour', 'person_day'] loop
    execute format('alter table %I enable row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
  foreach name in array array['cost_event', 'cost_fresh', 'cost_hour', 'cost_day', 'person_hour', 'person_day'] loop
    execute format('alter table %I force row level security', name);
  end loop;
end $$;

-- What reports read, exact at any instant: either sums by what was called or, `personal`, by who spent. Replicas of before read
-- `hour_sums` and `day_sums`, which are the first kind.
create view hour_parts with (security_invoker = true) as
  select false as personal, tenant_id, hour, provider, model, agent_name, '' as team, '' as user_id, entries, estimated,
    tokens_input, tokens_output, tokens_cached_input, tokens_reasoning, cost_micros_usd
  from hour_sums
  union all
  select true, tenant_id, hour, '', '', '', team, user_id, entries, estimated, tokens_input, tokens_output,
    tokens_cached_input, tokens_reasoning, cost_micros_usd
  from person_hour
  union all
  select true, tenant_id, hour, '', '', '', team, user_id, entries, estimated, tokens_input, tokens_output,
    tokens_cached_input, tokens_reasoning, cost_micros_usd
  from cost_fresh;
create view day_parts with (security_invoker = true) as
  select false as personal, tenant_id, day, provider, model, agent_name, '' as team, '' as user_id, entries, estimated,
    tokens_input, tokens_output, tokens_cached_input, tokens_reasoning, cost_micros_usd
  from day_sums
  union all
  select true, tenant_id, day, '', '', '', team, user_id, entries, estimated, tokens_input, tokens_output,
    tokens_cached_input, tokens_reasoning, cost_micros_usd
  from person_day
  union all
  select true, tenant_id, date_trunc('day', hour, 'UTC'), '', '', '', team, user_id, entries, estimated, tokens_input,
    tokens_output, tokens_cached_input, tokens_reasoning, cost_micros_usd
  from cost_fresh;

-- Adds what is fresh to all roll-ups. To be called by who holds the tenant's lock 7002.
create or replace function roll_up(p_tenant text) returns void language plpgsql as $$
declare
  fresh cost_fresh[];
  rolled record;
begin
  with moved as (delete from cost_fresh f where tenant_id = p_tenant returning f)
  select array_agg(f) into fresh from moved;
  for rolled in
    select * from (values
      ('cost_hour', 'hour', 'provider, model, agent_name'), ('cost_day', 'day', 'provider, model, agent_name'),
      ('person_hour', 'hour', 'team, user_id'), ('person_day', 'day', 'team, user_id')) kind(name, unit, names)
    where fresh is not null
  loop
    execute format($sums$
      insert into %1$I as known
      select tenant_id, date_trunc(%2$L, hour, 'UTC') as %2$I, %3$s, sum(entries), sum(estimated), sum(tokens_input),
        sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
      from unnest($1) group by 1, 2, %3$s
      on conflict (tenant_id, %2$I, %3$s) do update set
        entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
        tokens_input = known.tokens_input + excluded.tokens_input,
        tokens_output = known.tokens_output + excluded.tokens_output,
        tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
        tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
        cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd
      $sums$, rolled.name, rolled.unit, rolled.names) using fresh;
  end loop;
end $$;

-- The micro-USD set aside for a new lease; null, and nothing changed: a limit, be it a soft one, is in the way and `take_leases`
-- is to be asked, as it is after a unique violation, which says that the lease is known. Row-level security names the tenant
-- in each statement: naming it again would have each of them compare the two before it begins.
create function take_lease(
  p_tenant text, p_durable boolean, p_now timestamptz, p_generation text, p_keys text[], p_certain bigint, p_price bigint,
  p_output bigint, p_expires_at timestamptz
) returns bigint language plpgsql as $$
declare
  entered constant text := concat(
    set_config('app.tenant', p_tenant, true),
    set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true),
    set_config('plan_cache_mode', 'force_generic_plan', true), pg_advisory_xact_lock(7002, hashtext(p_tenant)));
  target constant bigint := (p_certain + p_price * p_output + 999999) / 1000000;
  passed boolean;
  counted bigint[];
begin
  select array_agg(c.id), bool_or(coalesce(c.settled_micros_usd + c.leased_micros_usd, 0) + target > n.first_limit)
  into counted, passed
  from (
    select b.id, least(b.limit_micros_usd, nullif(b.soft_limit_micros_usd, 0)) as first_limit,
      counted_scope(b.scope, p_keys) as scope, period_start(b.period, p_now) as began
    from budget b where b.scope = any(p_keys) offset 0) n
  left join budget_counter c on c.budget_id = n.id and c.scope = n.scope and c.period_start = n.began;
  if passed then
    return null;
  elsif array_position(counted, null) is not null then
    counted := count_up(p_tenant, p_keys, p_now, 0, target);
  elsif counted is not null then
    update budget_counter set leased_micros_usd = leased_micros_usd + target where id = any(counted);
  end if;
  insert into lease values (
    p_tenant, p_generation, p_keys, coalesce(counted, '{}'), p_certain, p_price, p_output, target, p_expires_at,
    date_trunc('hour', p_now, 'UTC'));
  return target;
end $$;

-- Writes and counts one entry and gives its lease back. A unique violation says that the attempt has an entry.
create function settle_event(
  p_durable boolean, p_tenant_id text, p_id text, p_generation_id text, p_session_id text, p_agent_name text, p_provider
  text, p_model text, p_tokens_input int, p_tokens_output int, p_tokens_cached_input int, p_tokens_reasoning int,
  p_estimated boolean, p_cost_micros_usd bigint, p_price_version text, p_created_at timestamptz, p_team text, p_user_id text,
  p_sub_agent text, p_turn_id text, p_attempt int, p_outcome text, p_tier text, p_region text, p_tokens_cache_write int,
  p_images int, p_tokens_audio_input int, p_tokens_audio_output int, p_tokens_embedding int, p_price_estimated boolean,
  p_keys text[]
) returns void language plpgsql as $$
declare
  entered constant text := concat(
    set_config('app.tenant', p_tenant_id, true),
    set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true),
    set_config('plan_cache_mode', 'force_generic_plan', true), pg_advisory_xact_lock(7002, hashtext(p_tenant_id)));
  this_hour constant timestamptz := date_trunc('hour', p_created_at, 'UTC');
  held bigint;
  counted bigint[];
  counted_hour timestamptz;
begin
  insert into cost_event values (
    p_tenant_id, p_id, p_generation_id, p_session_id, p_agent_name, p_provider, p_model, p_tokens_input, p_tokens_output,
    p_tokens_cached_input, p_tokens_reasoning, p_estimated, p_cost_micros_usd, p_cost_micros_usd * 0.000001,
    p_price_version, p_created_at, p_team, p_user_id, p_sub_agent, p_turn_id, p_attempt, p_outcome, p_tier, p_region,
    p_tokens_cache_write, p_images, p_tokens_audio_input, p_tokens_audio_output, p_tokens_embedding, p_price_estimated);
  insert into cost_fresh values (
    p_tenant_id, this_hour, p_provider, p_model, p_agent_name, 1, p_estimated::int, p_tokens_input, p_tokens_output,
    p_tokens_cached_input, p_tokens_reasoning, p_cost_micros_usd, p_team, p_user_id);
  -- Who settles on another path than the lease's is counted on that.
  delete from lease where generation_id = p_generation_id
  returning micros_usd, counters, case when keys = p_keys then lease.counted_hour end into held, counted, counted_hour;
  if counted_hour = this_hour then
    update budget_counter set settled_micros_usd = settled_micros_usd + p_cost_micros_usd,
      leased_micros_usd = leased_micros_usd - held
    where id = any(counted);
  else
    if held > 0 then
      update budget_counter set leased_micros_usd = leased_micros_usd - held where id = any(counted);
    end if;
    perform count_up(p_tenant_id, p_keys, p_created_at, p_cost_micros_usd, 0);
  end if;
end $$;

-- Writes what is new, counts it, gives leases back, and returns the entries that were there before.
create or replace function settle_events(p_tenant text, p_durable boolean, p_given settlement[]) returns setof cost_event
language plpgsql as $$
declare
  limited constant boolean := enter(p_tenant, p_durable, true);
  entries constant cost_event[] := array(select g.entry from unnest(p_given) g);
  fresh text[];
begin
  with written as (
    insert into cost_event select * from unnest(entries) on conflict (tenant_id, generation_id, attempt) do nothing
    returning *
  ), summed as (
    insert into cost_fresh
    select tenant_id, date_trunc('hour', created_at, 'UTC'), provider, model, agent_name, count(*),
      count(*) filter (where estimated), sum(tokens_input), sum(tokens_output), sum(tokens_cached_input),
      sum(tokens_reasoning), sum(cost_micros_usd), team, user_id
    from written group by 1, 2, 3, 4, 5, team, user_id
  ), freed as (
    delete from lease l using unnest(entries) e
    where l.tenant_id = p_tenant and l.generation_id = e.generation_id
    returning l.micros_usd, l.counters
  ), given_back as (
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - f.micros_usd
    from (select id, sum(micros_usd) as micros_usd from freed, unnest(counters) id group by id) f
    where c.tenant_id = p_tenant and c.id = f.id
  )
  select coalesce(array_agg(id), '{}') into fresh from written;

  if limited then
    insert into budget_counter as known (tenant_id, budget_id, scope, period_start, settled_micros_usd)
    select p_tenant, b.id, counted_scope(b.scope, g.keys), period_start(b.period, (g.entry).created_at),
      sum((g.entry).cost_micros_usd)
    from unnest(p_given) g join budget b on b.tenant_id = p_tenant and b.scope = any(g.keys)
    where (g.entry).id = any(fresh)
    group by 2, 3, 4
    on conflict (tenant_id, budget_id, scope, period_start) do update
      set settled_micros_usd = known.settled_micros_usd + excluded.settled_micros_usd;
  end if;

  if cardinality(fresh) < cardinality(p_given) then
    return query select c.* from unnest(entries) e
      join cost_event c on c.tenant_id = p_tenant and c.generation_id = e.generation_id and c.attempt = e.attempt
      where e.id <> all(fresh);
  end if;
end $$;

-- For replicas of before; those of two versions before are gone.
drop function settle_one(boolean, cost_event, text[]);
drop function settle_alone(text, boolean, cost_event, text[]);
create or replace function take_one(
  p_tenant text, p_durable boolean, p_now timestamptz, p_generation text, p_keys text[], p_certain numeric, p_price bigint,
  p_output bigint, p_expires_at timestamptz
) returns bigint language plpgsql as $$
begin
  return take_lease(
    p_tenant, p_durable, p_now, p_generation, p_keys, p_certain::bigint, p_price, p_output, p_expires_at);
exception when unique_violation then
  return null;
end $$;
create or replace function settle_one(
  p_durable boolean, p_tenant_id text, p_id text, p_generation_id text, p_session_id text, p_agent_name text, p_provider
  text, p_model text, p_tokens_input int, p_tokens_output int, p_tokens_cached_input int, p_tokens_reasoning int,
  p_estimated boolean, p_cost_micros_usd bigint, p_cost_usd numeric, p_price_version text, p_created_at timestamptz, p_team
  text, p_user_id text, p_sub_agent text, p_turn_id text, p_attempt int, p_outcome text, p_tier text, p_region text,
  p_tokens_cache_write int, p_images int, p_tokens_audio_input int, p_tokens_audio_output int, p_tokens_embedding int,
  p_price_estimated boolean, p_keys text[]
) returns boolean language plpgsql as $$
begin
  perform settle_event(
    p_durable, p_tenant_id, p_id, p_generation_id, p_session_id, p_agent_name, p_provider, p_model, p_tokens_input,
    p_tokens_output, p_tokens_cached_input, p_tokens_reasoning, p_estimated, p_cost_micros_usd, p_price_version,
    p_created_at, p_team, p_user_id, p_sub_agent, p_turn_id, p_attempt, p_outcome, p_tier, p_region, p_tokens_cache_write,
    p_images, p_tokens_audio_input, p_tokens_audio_output, p_tokens_embedding, p_price_estimated, p_keys);
  return true;
exception when unique_violation then
  return false;
end $$;
