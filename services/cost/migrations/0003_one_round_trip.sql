-- Reserve, extend and settle, many calls of one tenant at a time, each batch in one statement that is its own transaction.
-- A batch is counted as a whole. A call alone is counted by simple statements, which cost half as much as those for many, and
-- so are the calls of a batch that does not fit as a whole.
-- Two locks a tenant: 7001 is shared by all who spend and taken alone by who sets budgets; 7002 is taken by who counts: by
-- every settlement, and by leases when there is a budget.

create type lease_ask as (
  generation_id text, keys text[], certain numeric, price bigint, output bigint, expires_at timestamptz);
create type lease_answer as (place int, state text, micros bigint, ends_at timestamptz, told jsonb);
create type settlement as (entry cost_event, keys text[]);

create function period_start(p_period text, p_at timestamptz) returns timestamptz language sql stable
return case p_period when 'total' then 'epoch'::timestamptz else date_trunc(p_period, p_at, 'UTC') end;

-- Keys are the scopes a call spends from and then, in the same order, those of the budgets for each of their level. The scope
-- that a budget of this key counts for the call:
create function counted_scope(p_budget text, p_keys text[]) returns text language sql immutable
return p_keys[mod(array_position(p_keys, p_budget) - 1, cardinality(p_keys) / 2) + 1];

-- Enters a tenant; whether anything limits it.
create function enter(p_tenant text, p_durable boolean, p_counts boolean) returns boolean language plpgsql as $$
declare
  limited boolean;
begin
  perform set_config('app.tenant', p_tenant, true),
    set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    pg_advisory_xact_lock_shared(7001, hashtext(p_tenant));
  limited := exists (select from budget where tenant_id = p_tenant);
  if limited or p_counts then
    perform pg_advisory_xact_lock(7002, hashtext(p_tenant));
  end if;
  return limited;
end $$;

-- Gives back what leases hold whose time has passed. They stay, empty, so that they can be taken anew.
create function reclaim_leases(p_tenant text, p_now timestamptz) returns bigint language sql as $$
  with ended as (
    select generation_id, micros_usd, counters from lease
    where tenant_id = p_tenant and expires_at <= p_now and micros_usd > 0 for update
  ), emptied as (
    update lease l set micros_usd = 0, counters = '{}' from ended e
    where l.tenant_id = p_tenant and l.generation_id = e.generation_id
  ), freed as (
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - f.micros_usd
    from (select id, sum(micros_usd) as micros_usd from ended, unnest(counters) id group by id) f
    where c.tenant_id = p_tenant and c.id = f.id
  )
  select coalesce(sum(micros_usd), 0)::bigint from ended;
$$;

-- Adds to the counters of all budgets on the path, in the windows of that instant, and makes those there are none of.
create function count_up(
  p_tenant text, p_keys text[], p_at timestamptz, p_settled bigint, p_leased bigint, out counters bigint[]
) language plpgsql as $$
begin
  with counted as (
    insert into budget_counter as known (
      tenant_id, budget_id, scope, period_start, settled_micros_usd, leased_micros_usd)
    select p_tenant, b.id, counted_scope(b.scope, p_keys), period_start(b.period, p_at), p_settled, p_leased
    from budget b where b.tenant_id = p_tenant and b.scope = any(p_keys)
    on conflict (tenant_id, budget_id, scope, period_start) do update set
      settled_micros_usd = known.settled_micros_usd + excluded.settled_micros_usd,
      leased_micros_usd = known.leased_micros_usd + excluded.leased_micros_usd
    returning id
  )
  select array_agg(id) into counters from counted;
end $$;

-- Limits that spending `p_wanted` on these keys would pass, of which `p_own` is held on `p_counters` already; null: none.
create function look_at_budgets(
  p_tenant text, p_keys text[], p_now timestamptz, p_wanted bigint, p_own bigint, p_counters bigint[]
) returns jsonb language plpgsql stable as $$
declare
  told jsonb;
begin
  select jsonb_agg(jsonb_build_object(
    'budget_id', b.id, 'scope', counted_scope(b.scope, p_keys), 'window', b.period, 'approved', coalesce(c.approved, false),
    'amount', case when t.total > b.limit_micros_usd then b.limit_micros_usd else b.soft_limit_micros_usd end,
    'action', case when t.total > b.limit_micros_usd then null else b.soft_action end))
  into told
  from budget b
  left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = b.id
    and c.scope = counted_scope(b.scope, p_keys) and c.period_start = period_start(b.period, p_now)
  cross join lateral (select coalesce(c.settled_micros_usd + c.leased_micros_usd, 0)
    - case when c.id = any(p_counters) then p_own else 0 end + p_wanted) t(total)
  where b.tenant_id = p_tenant and b.scope = any(p_keys)
    and (t.total > b.limit_micros_usd or (b.soft_limit_micros_usd > 0 and t.total > b.soft_limit_micros_usd));
  return told;
end $$;

-- What those limits mean: hard (one is in the way), ask (a soft one asks first), granted.
create function verdict(p_told jsonb, p_more boolean, p_new boolean) returns text language sql immutable
return case
  when p_told is null or not p_more then 'granted'
  when p_told @? '$[*] ? (@.action == null)' then 'hard'
  when p_new and p_told @? '$[*] ? (@.action == "ask" && @.approved == false)' then 'ask'
  else 'granted' end;

-- Grants all of a batch when every limit, soft ones too, has room for all of it; no rows, and nothing changed, when not.
create function take_together(p_tenant text, p_now timestamptz, p_asked lease_ask[])
returns setof lease_answer language plpgsql as $$
begin
  return query
  with asked as (
    select * from unnest(p_asked) with ordinality a(generation_id, keys, certain, price, output, expires_at, place)
  ), held as (
    select * from lease l
    where l.tenant_id = p_tenant and l.generation_id = any(select a.generation_id from asked a) for update
  ), wanted as (
    select a.place::int, a.generation_id, coalesce(a.keys, h.keys) as keys, a.expires_at, h.micros_usd, h.counters,
      h.expires_at as held_until, coalesce(a.certain, h.certain_millionths) as certain,
      coalesce(a.price, h.output_price) as price,
      case when a.keys is null then greatest(h.output_tokens, a.output) else a.output end as output,
      case when a.keys is null and h.generation_id is null then 'missing'
        when a.keys is not null and h.expires_at > p_now then 'held' else 'granted' end as state
    from asked a left join held h on h.generation_id = a.generation_id
  ), targets as (
    select *, ceil((w.certain + w.price::numeric * w.output) / 1000000)::bigint as target from wanted w
    where w.state = 'granted'
  ), needs as (
    select b.id as budget_id, counted_scope(b.scope, t.keys) as scope, period_start(b.period, p_now) as began,
      b.limit_micros_usd, b.soft_limit_micros_usd, sum(t.target) as target
    from targets t join budget b on b.tenant_id = p_tenant and b.scope = any(t.keys)
    group by 1, 2, 3, 4, 5
  ), gives as (
    select id, sum(t.micros_usd) as own from targets t, unnest(t.counters) id where t.micros_usd > 0 group by id
  ), room as (
    select n.*, c.id, coalesce(g.own, 0) as own,
      coalesce(c.settled_micros_usd + c.leased_micros_usd, 0) - coalesce(g.own, 0) + n.target as total
    from needs n
    left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = n.budget_id and c.scope = n.scope
      and c.period_start = n.began
    left join gives g on g.id = c.id
  ), fits as (
    select from (select bool_or(r.total > r.limit_micros_usd
      or (r.soft_limit_micros_usd > 0 and r.total > r.soft_limit_micros_usd)) as passed from room r) one
    where one.passed is not true
  ), counted as (
    insert into budget_counter as known (tenant_id, budget_id, scope, period_start, leased_micros_usd)
    select p_tenant, r.budget_id, r.scope, r.began, r.target - r.own from room r, fits
    on conflict (tenant_id, budget_id, scope, period_start) do update
      set leased_micros_usd = known.leased_micros_usd + excluded.leased_micros_usd
    returning known.id, known.scope
  ), given_up as (
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - g.own from gives g, fits
    where c.tenant_id = p_tenant and c.id = g.id and not exists (select from room r where r.id = c.id)
  ), put as (
    insert into lease
    select p_tenant, t.generation_id, t.keys,
      coalesce((select array_agg(c.id) from counted c where c.scope = any(t.keys)), '{}'),
      t.certain, t.price, t.output, t.target, t.expires_at
    from targets t, fits
    on conflict (tenant_id, generation_id) do update set
      keys = excluded.keys, counters = excluded.counters, certain_millionths = excluded.certain_millionths,
      output_price = excluded.output_price, output_tokens = excluded.output_tokens, micros_usd = excluded.micros_usd,
      expires_at = excluded.expires_at
  )
  select w.place, w.state, coalesce(t.target, w.micros_usd), case w.state when 'held' then w.held_until else w.expires_at end,
    null::jsonb
  from wanted w left join targets t on t.place = w.place, fits;
end $$;

-- Without keys an ask extends a lease. States: held, granted, hard, ask, missing (nothing to extend).
create function take_leases(p_tenant text, p_durable boolean, p_now timestamptz, p_asked lease_ask[])
returns setof lease_answer language plpgsql as $$
declare
  limited constant boolean := enter(p_tenant, p_durable, false);
  reclaimed boolean := not limited;
  wanted record;
  held lease;
  answer lease_answer;
  target bigint;
  own bigint;
  counted bigint[];
begin
  if cardinality(p_asked) > 1 and (select count(distinct generation_id) = count(*) from unnest(p_asked)) then
    return query select * from take_together(p_tenant, p_now, p_asked);
    if found then
      return;
    end if;
  end if;
  for wanted in select * from unnest(p_asked) with ordinality order by 1, 7 loop
    select * into held from lease l where l.tenant_id = p_tenant and l.generation_id = wanted.generation_id for update;
    answer := (wanted.ordinality, null, held.micros_usd, held.expires_at, null);
    if wanted.keys is null and held.generation_id is null then
      answer.state := 'missing';
      return next answer;
      continue;
    elsif wanted.keys is not null and held.expires_at > p_now then
      answer.state := 'held';
      return next answer;
      continue;
    elsif wanted.keys is null then
      wanted.keys := held.keys;
      wanted.certain := held.certain_millionths;
      wanted.price := held.output_price;
      wanted.output := greatest(held.output_tokens, wanted.output);
    end if;
    own := coalesce(held.micros_usd, 0);
    target := ceil((wanted.certain + wanted.price::numeric * wanted.output) / 1000000);
    counted := '{}';
    answer.state := 'granted';
    if limited then
      answer.told := look_at_budgets(p_tenant, wanted.keys, p_now, target, own, held.counters);
      answer.state := verdict(answer.told, target > own, held.generation_id is null);
      if answer.told is not null and not reclaimed then
        reclaimed := true;
        if reclaim_leases(p_tenant, p_now) > 0 then
          select * into held from lease l where l.tenant_id = p_tenant and l.generation_id = wanted.generation_id;
          own := coalesce(held.micros_usd, 0);
          answer.told := look_at_budgets(p_tenant, wanted.keys, p_now, target, own, held.counters);
          answer.state := verdict(answer.told, target > own, held.generation_id is null);
        end if;
      end if;
      if answer.state = 'granted' then
        if own > 0 then
          update budget_counter c set leased_micros_usd = c.leased_micros_usd - own
          where c.tenant_id = p_tenant and c.id = any(held.counters);
        end if;
        counted := coalesce(count_up(p_tenant, wanted.keys, p_now, 0, target), '{}');
      end if;
    end if;
    if answer.state = 'granted' then
      answer.micros := target;
      answer.ends_at := wanted.expires_at;
      insert into lease values (
        p_tenant, wanted.generation_id, wanted.keys, counted, wanted.certain, wanted.price, wanted.output, target,
        wanted.expires_at)
      on conflict (tenant_id, generation_id) do update set
        keys = excluded.keys, counters = excluded.counters, certain_millionths = excluded.certain_millionths,
        output_price = excluded.output_price, output_tokens = excluded.output_tokens, micros_usd = excluded.micros_usd,
        expires_at = excluded.expires_at;
    end if;
    return next answer;
  end loop;
end $$;

-- Writes, counts and rolls up one entry and gives its lease back, unless the attempt has an entry.
create function settle_alone(p_tenant text, p_limited boolean, e cost_event, p_keys text[]) returns boolean
language plpgsql as $$
declare
  fresh boolean;
  held lease;
begin
  insert into cost_event values (e.*) on conflict (tenant_id, generation_id, attempt) do nothing;
  fresh := found;
  delete from lease l where l.tenant_id = p_tenant and l.generation_id = e.generation_id returning * into held;
  if held.micros_usd > 0 then
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - held.micros_usd
    where c.tenant_id = p_tenant and c.id = any(held.counters);
  end if;
  if not fresh then
    return false;
  end if;
  if p_limited then
    perform count_up(p_tenant, p_keys, e.created_at, e.cost_micros_usd, 0);
  end if;
  insert into cost_hour as known values (
    p_tenant, date_trunc('hour', e.created_at, 'UTC'), e.provider, e.model, e.agent_name, 1, e.estimated::int,
    e.tokens_input, e.tokens_output, e.tokens_cached_input, e.tokens_reasoning, e.cost_micros_usd)
  on conflict (tenant_id, hour, provider, model, agent_name) do update set
    entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
    tokens_input = known.tokens_input + excluded.tokens_input,
    tokens_output = known.tokens_output + excluded.tokens_output,
    tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
    tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
    cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd;
  insert into cost_day as known values (
    p_tenant, date_trunc('day', e.created_at, 'UTC'), e.provider, e.model, e.agent_name, 1, e.estimated::int,
    e.tokens_input, e.tokens_output, e.tokens_cached_input, e.tokens_reasoning, e.cost_micros_usd)
  on conflict (tenant_id, day, provider, model, agent_name) do update set
    entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
    tokens_input = known.tokens_input + excluded.tokens_input,
    tokens_output = known.tokens_output + excluded.tokens_output,
    tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
    tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
    cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd;
  return true;
end $$;

-- Writes what is new, counts it, gives leases back, and returns the entries that were there before.
create function settle_events(p_tenant text, p_durable boolean, p_given settlement[]) returns setof cost_event
language plpgsql as $$
declare
  limited constant boolean := enter(p_tenant, p_durable, true);
  fresh text[];
begin
  if cardinality(p_given) = 1 then
    if not settle_alone(p_tenant, limited, p_given[1].entry, p_given[1].keys) then
      return query select * from cost_event c where c.tenant_id = p_tenant
        and c.generation_id = (p_given[1].entry).generation_id and c.attempt = (p_given[1].entry).attempt;
    end if;
    return;
  end if;
  with written as (
    insert into cost_event select (g.entry).* from unnest(p_given) g
    on conflict (tenant_id, generation_id, attempt) do nothing
    returning id
  ), freed as (
    delete from lease l using unnest(p_given) g
    where l.tenant_id = p_tenant and l.generation_id = (g.entry).generation_id
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

  with sums as (
    select date_trunc('hour', e.created_at, 'UTC') as hour, e.provider, e.model, e.agent_name, count(*) as entries,
      count(*) filter (where e.estimated) as estimated, sum(e.tokens_input) as input, sum(e.tokens_output) as output,
      sum(e.tokens_cached_input) as cached, sum(e.tokens_reasoning) as reasoning, sum(e.cost_micros_usd) as micros
    from (select (g.entry).* from unnest(p_given) g) e where e.id = any(fresh) group by 1, 2, 3, 4
  ), hours as (
    insert into cost_hour as known
    select p_tenant, * from sums
    on conflict (tenant_id, hour, provider, model, agent_name) do update set
      entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
      tokens_input = known.tokens_input + excluded.tokens_input,
      tokens_output = known.tokens_output + excluded.tokens_output,
      tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
      tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
      cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd
  )
  insert into cost_day as known
  select p_tenant, date_trunc('day', hour, 'UTC'), provider, model, agent_name, sum(entries), sum(estimated), sum(input),
    sum(output), sum(cached), sum(reasoning), sum(micros)
  from sums group by 2, 3, 4, 5
  on conflict (tenant_id, day, provider, model, agent_name) do update set
    entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
    tokens_input = known.tokens_input + excluded.tokens_input,
    tokens_output = known.tokens_output + excluded.tokens_output,
    tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
    tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
    cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd;

  if cardinality(fresh) < cardinality(p_given) then
    return query select c.* from unnest(p_given) g
      join cost_event c on c.tenant_id = p_tenant and c.generation_id = (g.entry).generation_id
        and c.attempt = (g.entry).attempt
      where (g.entry).id <> all(fresh);
  end if;
end $$;
