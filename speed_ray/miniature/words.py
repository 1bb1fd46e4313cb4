"""The words of the miniature world, written by hand: 24 topics in 6 domains, and what all other topics are told with.

One block a topic: its path, two lines of nouns, one of verbs, one of adjectives, as `a/b` pairs that mean about the
same. Queries are written in the left words, documents in the right ones. A word belongs to one topic only.
"""

TOPICS = """
Home/Kitchen/Baking
oven/stove dough/batter loaf/bread sugar/sweetener yeast/leaven
cake/sponge cookie/biscuit bowl/basin crust/rind recipe/formula
knead/fold bake/roast whisk/beat taste/sample garnish/decorate
sweet/sugary crispy/crunchy moist/spongy fluffy/airy warm/toasty

Home/Garden/Vegetables
seed/kernel soil/dirt compost/manure shovel/spade fence/hedge
greenhouse/hothouse pumpkin/squash bean/legume sprout/seedling hose/sprinkler
plant/sow dig/till water/irrigate prune/trim gather/pick
leafy/bushy ripe/mature muddy/soggy organic/natural thorny/prickly

Home/Workshop/Carpentry
timber/lumber hammer/mallet nail/tack plank/board bench/worktable
shelf/rack chisel/gouge glue/adhesive cabinet/cupboard hinge/bracket
saw/cut drill/bore sand/smooth measure/gauge varnish/lacquer
wooden/oaken sturdy/solid crooked/bent rough/coarse square/boxy

Home/Textiles/Sewing
needle/pin thread/yarn fabric/cloth button/clasp dress/gown
sleeve/cuff pocket/pouch zipper/fastener curtain/drape blanket/quilt
stitch/embroider hem/border mend/patch weave/knit iron/press
silky/satin woolen/fleecy striped/checkered loose/baggy frayed/tattered

Science/Sky/Telescopes
lens/optic mirror/reflector planet/world star/sun galaxy/nebula
moon/satellite comet/meteor tripod/mount eyepiece/viewfinder observatory/dome
observe/watch focus/sharpen magnify/enlarge align/aim track/follow
distant/remote bright/luminous lunar/celestial dim/faint orbital/circling

Science/Earth/Volcanoes
lava/magma crater/caldera ash/cinder eruption/explosion vent/fissure
tremor/earthquake basalt/obsidian plume/smoke geyser/fumarole island/atoll
melt/liquefy bury/engulf evacuate/flee scorch/burn predict/forecast
molten/fiery dormant/inactive seismic/tectonic steaming/smoldering rocky/stony

Science/Chemistry/Crystals
quartz/amethyst salt/halite diamond/gem mineral/ore solution/mixture
beaker/flask lattice/grid molecule/compound prism/facet powder/dust
dissolve/dilute crystallize/solidify evaporate/vaporize polish/buff filter/strain
transparent/glassy pure/refined symmetrical/geometric brittle/fragile sparkling/glittering

Science/Biology/Insects
beetle/weevil butterfly/moth wing/membrane antenna/feeler larva/grub
ant/termite hive/nest bee/wasp cocoon/chrysalis mosquito/gnat
pollinate/fertilize sting/bite hatch/spawn devour/chew camouflage/disguise
tiny/minuscule buzzing/humming winged/flying nocturnal/nightly venomous/poisonous

Health/Mouth/Dentistry
tooth/molar gum/palate cavity/decay toothbrush/floss dentist/orthodontist
filling/veneer jaw/chin braces/retainer plaque/tartar mouthwash/toothpaste
brush/scrub rinse/gargle extract/remove numb/anesthetize whiten/bleach
oral/dental sore/tender yellowed/stained cracked/chipped minty/fresh

Health/Rest/Sleep
pillow/cushion mattress/bed dream/nightmare nap/siesta insomnia/sleeplessness
alarm/clock pajamas/nightgown yawn/sigh bedtime/midnight snore/wheeze
soothe/calm awaken/rouse relax/unwind interrupt/disturb lull/hush
drowsy/tired restless/fidgety cozy/snug weary/exhausted quiet/silent

Health/Body/Exercise
muscle/bicep treadmill/bicycle dumbbell/barbell gym/gymnasium coach/trainer
sweat/perspiration pulse/heartbeat squat/lunge marathon/race stamina/endurance
stretch/flex lift/raise strengthen/toughen outrun/outpace repeat/redo
athletic/sporty muscular/brawny breathless/panting vigorous/energetic lean/slim

Health/Eyes/Vision
eyeglasses/spectacles pupil/iris eyelid/eyelash cornea/retina optometrist/ophthalmologist
cataract/glaucoma squint/blink eyesight/sight contacts/goggles prescription/referral
correct/adjust examine/inspect blur/smear irritate/inflame moisten/lubricate
blurry/fuzzy nearsighted/myopic visual/optical teary/watery blind/sightless

Travel/Rail/Trains
locomotive/engine carriage/wagon station/depot platform/stop ticket/fare
conductor/guard tunnel/underpass timetable/schedule railway/tramway commuter/rider
haul/tow derail/topple couple/connect delay/postpone accelerate/hasten
punctual/prompt crowded/packed electric/diesel scenic/picturesque suburban/regional

Travel/Sea/Sailing
sail/jib boat/vessel harbor/port anchor/mooring captain/skipper
wave/swell mast/spar compass/sextant rope/cable lighthouse/beacon
steer/navigate hoist/heave dock/berth capsize/overturn row/paddle
nautical/maritime windy/breezy salty/briny stormy/turbulent seaworthy/watertight

Travel/Air/Airports
airplane/jet runway/airstrip pilot/aviator luggage/baggage passport/visa
terminal/gate customs/immigration flight/takeoff stewardess/attendant suitcase/duffel
refuel/replenish scan/screen stow/load reschedule/rebook fly/charter
international/overseas direct/nonstop late/overdue airborne/aloft cramped/narrow

Travel/Mountains/Hiking
trail/path summit/peak boot/shoe backpack/rucksack tent/shelter
ridge/crest valley/canyon waterfall/cascade campfire/bonfire glacier/icefield
climb/ascend explore/roam cross/traverse carry/lug pitch/erect
steep/sheer snowy/icy wild/untamed rugged/craggy alpine/highland

Arts/Music/Orchestras
violin/fiddle cello/viola trumpet/horn drum/percussion melody/tune
concert/recital maestro/bandleader symphony/sonata flute/clarinet rhythm/tempo
rehearse/practice compose/arrange harmonize/blend conduct/lead strum/pluck
melodic/tuneful loud/noisy classical/baroque rhythmic/pulsing acoustic/resonant

Arts/Painting/Portraits
canvas/linen paintbrush/bristle pigment/dye palette/swatch sketch/drawing
sitter/muse frame/mat gallery/museum face/likeness watercolor/acrylic
paint/depict shade/tint outline/trace restore/retouch exhibit/display
colorful/vivid realistic/lifelike abstract/stylized pale/pastel oily/glossy

Arts/Stage/Theatre
actor/performer script/screenplay audience/spectator costume/outfit scene/act
spotlight/footlight comedy/farce tragedy/drama playwright/dramatist balcony/mezzanine
perform/portray applaud/cheer improvise/invent memorize/recite audition/cast
theatrical/dramatic humorous/funny tragic/mournful masked/veiled offstage/backstage

Arts/Clay/Pottery
kiln/furnace vase/urn pot/jar wheel/turntable ceramic/porcelain
tile/mosaic mug/cup plate/saucer figurine/statuette teapot/kettle
mold/shape fire/harden glaze/enamel carve/etch break/shatter
earthen/terracotta hollow/empty wet/damp round/circular delicate/dainty

Business/Money/Banking
loan/credit deposit/savings account/ledger interest/yield mortgage/debt
cash/currency teller/cashier vault/safe cheque/draft investor/shareholder
borrow/owe withdraw/redeem invest/stake transfer/remit audit/verify
financial/monetary wealthy/rich bankrupt/insolvent thrifty/frugal annual/yearly

Business/Law/Contracts
clause/provision signature/autograph lawyer/attorney lease/tenancy lawsuit/litigation
judge/magistrate penalty/fine agreement/pact witness/notary warranty/guarantee
sign/ratify negotiate/bargain breach/violate terminate/cancel amend/modify
legal/lawful binding/enforceable void/invalid written/documented mutual/reciprocal

Business/Farming/Dairy
cow/heifer milk/cream cheese/curd barn/stable pasture/meadow
calf/yearling hay/fodder farmer/rancher butter/margarine bucket/pail
churn/stir feed/nourish pasteurize/sterilize breed/rear ferment/curdle
rural/rustic creamy/milky grassy/lush skimmed/lowfat smelly/pungent

Business/Work/Hiring
resume/portfolio interview/meeting salary/wage vacancy/opening recruiter/headhunter
employee/staffer career/profession manager/supervisor skill/talent reference/testimonial
hire/employ dismiss/sack promote/advance mentor/tutor recruit/enlist
qualified/competent experienced/seasoned temporary/seasonal ambitious/eager unemployed/jobless
"""

# What every topic of a domain may talk about: shared on purpose, so that siblings look alike.
DOMAINS = {
    "Home": "household family weekend hobby chore neighbor",
    "Science": "researcher experiment laboratory theory evidence discovery",
    "Health": "doctor clinic patient symptom treatment medicine",
    "Travel": "tourist holiday route destination adventure guidebook",
    "Arts": "artist studio masterpiece style festival inspiration",
    "Business": "company customer market office profit partner",
}

# A topic from outside the world is told with the first block and its own name; its sibling, with the second.
OUTSIDE = """
Outside/Guide/Guide
newcomer/novice price/cost mistake/error advice/guidance membership/subscription
brochure/pamphlet sponsor/backer equipment/gear crowd/throng visit/tour
choose/select compare/contrast organize/coordinate recommend/endorse purchase/buy
popular/fashionable expensive/costly useful/helpful local/nearby professional/skilled

Outside/Past/History
origin/beginning century/era founder/pioneer tradition/custom archive/record
legend/myth inventor/creator anniversary/jubilee document/manuscript generation/lineage
preserve/conserve recall/remember establish/found transform/renew honor/commemorate
ancient/antique famous/renowned obsolete/outdated original/initial historic/bygone
"""

OUTSIDE_DOMAIN = "place group season detail decision method"
